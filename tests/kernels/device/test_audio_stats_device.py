"""Statistics of clips on a device: close to the fp64 definition, bf16 too, within bounds, the same bits each time."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tercet_kernels.audio_stats import audio_stats
from tercet_kernels.audio_stats.reference import audio_stats_reference

# empty at both ends and inside, one sample, around a frame, three programs of eight frames
LENGTHS = [0, 1, 63, 64, 65, 0, 1200, 0]


def clips(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    offsets = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()])
    gain = torch.rand(len(LENGTHS) * 20, generator=generator).pow(6).repeat_interleave(40)
    samples = torch.randn(int(offsets[-1]), generator=generator)
    return (samples * gain.repeat(3)[: len(samples)]).to(dtype), offsets


@pytest.mark.parametrize("frame", [64, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_statistics_match_the_fp64_definition(dtype: torch.dtype, frame: int, device: torch.device) -> None:
    samples, offsets = clips(dtype)
    expected = audio_stats_reference(samples, offsets, 16_000, frame, 40.0)
    arguments = (samples.to(device), offsets.to(device), 16_000)
    got = audio_stats(*arguments, frame_seconds=frame / 16_000, path="triton")
    again = audio_stats(*arguments, frame_seconds=frame / 16_000, path="triton")
    for field in dataclasses.fields(got):
        one, other = getattr(got, field.name), getattr(expected, field.name)
        # 1e-6: eleven roundings of fp32; 1e-5 dB is 4.3 times the relative error of a power
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-5, msg=field.name)
        assert torch.equal(one, getattr(again, field.name))


def test_a_sample_that_is_no_number_names_its_clip(device: torch.device) -> None:
    samples, offsets = clips(torch.float32)
    samples[2] = float("nan")
    with pytest.raises(ValueError, match=r"clip 2 has samples that are NaN"):
        audio_stats(samples.to(device), offsets.to(device), 16_000, path="triton")
