"""Statistics of clips: the definition on signals whose answers are known, the host and Triton paths against it.

The audio gate's own numbers are compared with in `test_audio_stats_gate.py`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.audio_stats import AudioStats, audio_stats, fused, summary
from tercet_kernels.audio_stats.reference import audio_stats_reference

RATE, FRAME = 16_000, 320
NAMES = [field.name for field in dataclasses.fields(AudioStats)]
PATHS = ["torch", "triton"]


def join(clips: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat(clips), torch.tensor([0, *np.cumsum([len(clip) for clip in clips], dtype=np.int64)])


def noise(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    """Draw clips whose loudness changes every 100 samples, some of it digital silence."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for length in lengths:
        gain = torch.rand(length // 100 + 1, generator=generator).pow(6)
        gain[gain < 1e-3] = 0
        clips.append(torch.randn(length, generator=generator) * gain.repeat_interleave(100)[:length])
    return clips


def assert_close(got: AudioStats, expected: AudioStats, tolerance: float) -> None:
    for name in NAMES:
        one, other = getattr(got, name), getattr(expected, name)
        assert one.dtype == torch.float64
        # 1e-5 dB: 4.3 times the relative error of a power of 2e-6
        torch.testing.assert_close(one, other, rtol=tolerance, atol=10 * tolerance, msg=name)


def is_decided(clips: list[torch.Tensor], frame: int, below_db: float) -> bool:
    """Tell whether every frame lies at least 1e-4 dB from the limit: nearer, fp32 may call silence otherwise."""
    for clip in clips:
        padded = torch.nn.functional.pad(clip.double(), (0, -len(clip) % frame)).reshape(-1, frame)
        power = padded.square().mean(1)
        if len(power) and power.max() > 0:
            below = -10 * (power / power.max()).log10()
            if ((below - below_db).abs() < 1e-4).any():
                return False
    return True


# sums of fp32 in trees of at most 5 serial additions a lane and 6 levels: 11 roundings of 6e-8
TOLERANCE = {"torch": 1e-12, "triton": 1e-6}


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=examples(25), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 2500), min_size=1, max_size=6),
    frame=st.sampled_from([1, 7, 64, 320, 441, 700]),
    below_db=st.sampled_from([10.0, 40.0]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    seed=st.integers(0, 99),
)
def test_paths_match_the_fp64_definition(
    path: str, lengths: list[int], frame: int, below_db: float, dtype: torch.dtype, seed: int
) -> None:
    clips = [clip.to(dtype) for clip in noise(lengths, seed)]
    assume(is_decided(clips, frame, below_db))
    samples, offsets = join(clips)
    expected = audio_stats_reference(samples, offsets, RATE, frame, below_db)
    got = audio_stats(samples, offsets, RATE, frame_seconds=frame / RATE, below_db=below_db, path=path)
    assert_close(got, expected, TOLERANCE[path])


def test_fp64_samples_are_measured_in_fp64() -> None:
    samples, offsets = join([clip.double() / 3 for clip in noise([900, 4000])])
    expected = audio_stats_reference(samples, offsets, RATE, FRAME, 40.0)
    assert_close(audio_stats(samples, offsets, RATE, path="auto"), expected, 1e-12)


def measure(clip: torch.Tensor, path: str) -> dict[str, float]:
    stats = audio_stats(clip, torch.tensor([0, len(clip)]), RATE, path=path)
    return {name: getattr(stats, name).item() for name in NAMES}


@pytest.mark.parametrize("path", PATHS)
def test_a_sine_between_silences_is_measured(path: str) -> None:
    time = torch.arange(RATE) / RATE
    sine = 0.5 * torch.sin(2 * math.pi * 100 * time + 0.1)
    quiet = torch.zeros(FRAME * 10)
    got = measure(torch.cat([quiet, sine, quiet, quiet, sine, quiet]), path)
    assert got["seconds"] == 2.8
    assert got["peak"] == pytest.approx(0.5, abs=1e-4)
    assert got["rms"] == pytest.approx(0.5 * math.sqrt(2 / 2.8 / 2), rel=1e-5)
    assert got["dc"] == pytest.approx(0, abs=1e-7)
    assert got["leading_silence_seconds"] == 0.2
    assert got["trailing_silence_seconds"] == 0.2
    assert got["longest_pause_seconds"] == 0.4
    assert got["silence_ratio"] == pytest.approx(0.8 / 2.8, rel=1e-12)
    # the 95th percentile is the sine's -9.03 dB, the 10th digital silence: -100 dB
    assert got["snr_db"] == pytest.approx(100 - 10 * math.log10(8), abs=1e-3)
    assert got["zero_crossing_rate"] * (2.8 * RATE - 1) == pytest.approx(400, abs=1)


@pytest.mark.parametrize("path", PATHS)
def test_a_clip_without_samples_is_nothing_but_silence(path: str) -> None:
    got = measure(torch.empty(0), path)
    assert got.pop("silence_ratio") == 1
    assert set(got.values()) == {0}


@pytest.mark.parametrize("path", PATHS)
def test_digital_silence_is_silent_from_both_ends(path: str) -> None:
    got = measure(torch.zeros(FRAME * 3 + 1), path)
    assert got.pop("seconds") == (FRAME * 3 + 1) / RATE
    assert got.pop("silence_ratio") == 1
    assert got.pop("leading_silence_seconds") == 0.08
    assert got.pop("trailing_silence_seconds") == 0.08
    assert set(got.values()) == {0}


@pytest.mark.parametrize("path", PATHS)
def test_an_offset_alone_is_all_dc_and_no_crossing(path: str) -> None:
    got = measure(torch.full((RATE,), -0.25), path)
    assert (got["dc"], got["rms"], got["peak"]) == (-0.25, 0.25, 0.25)
    assert (got["zero_crossing_rate"], got["silence_ratio"], got["snr_db"]) == (0, 0, 0)


@pytest.mark.parametrize("path", PATHS)
def test_a_clip_shorter_than_a_frame_is_one_frame(path: str) -> None:
    got = measure(torch.tensor([0.5, -0.5, 0.5]), path)
    assert (got["rms"], got["zero_crossing_rate"], got["silence_ratio"], got["snr_db"]) == (0.5, 1, 0, 0)
    assert got["seconds"] == 3 / RATE


@pytest.mark.parametrize("path", PATHS)
def test_both_ends_of_the_scale_count_as_clipped(path: str) -> None:
    clip = torch.tensor([0.9985, -0.9985, 0.999, -0.9995, 1.0, -1.0, 1.5, 0.0])
    got = measure(clip, path)
    assert got["clipped_share"] == 5 / 8
    assert got["peak"] == 1.5


@pytest.mark.parametrize("path", PATHS)
def test_a_crossing_never_spans_two_clips_and_minus_zero_is_zero(path: str) -> None:
    samples = torch.tensor([0.5, 0.5, -0.5, -0.5, 0.0, -0.0, 0.5])
    stats = audio_stats(samples, torch.tensor([0, 2, 4, 7]), RATE, path=path)
    assert stats.zero_crossing_rate.tolist() == [0, 0, 0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sample_that_is_no_number_names_its_clip(path: str, value: float) -> None:
    samples, offsets = join(noise([500, 700, 0, 900]))
    samples[700] = value
    with pytest.raises(ValueError, match=r"audio_stats: clip 1 has samples that are NaN or infinite; remove it"):
        audio_stats(samples, offsets, RATE, path=path)
    samples[-1] = value
    with pytest.raises(ValueError, match=r"clip 1 \(and 1 more\)"):
        audio_stats(samples, offsets, RATE, path=path)
    with pytest.raises(ValueError, match=r"clip 1 \(and 1 more\)"):
        audio_stats_reference(samples, offsets, RATE, FRAME, 40.0)


@pytest.mark.parametrize("path", PATHS)
def test_large_finite_samples_are_no_error(path: str) -> None:
    got = measure(torch.tensor([1e18, -1e18]), path)
    assert got["peak"] == pytest.approx(1e18)
    assert got["rms"] == pytest.approx(1e18)


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_of_no_clips_is_no_error(path: str) -> None:
    stats = audio_stats(torch.empty(0), torch.zeros(1, dtype=torch.int64), RATE, path=path)
    assert all(getattr(stats, name).shape == (0,) for name in NAMES)
    stats = audio_stats(torch.empty(0), torch.zeros(3, dtype=torch.int64), RATE, path=path)
    assert stats.silence_ratio.tolist() == [1, 1]


@pytest.mark.parametrize("path", PATHS)
def test_rows_in_small_blocks_change_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, offsets = join(noise([5000, 0, 100, 9000, 320, 4000]))
    whole = audio_stats(samples, offsets, RATE, path=path)
    monkeypatch.setattr(summary, "BLOCK_FRAMES", 30)
    blocks = audio_stats(samples, offsets, RATE, path=path)
    assert all(torch.equal(getattr(whole, name), getattr(blocks, name)) for name in NAMES)


@pytest.mark.parametrize("path", PATHS)
def test_a_clip_gets_the_same_numbers_in_any_company(path: str) -> None:
    clips = noise([5000, 3, 8000])
    together = audio_stats(*join(clips), RATE, path=path)
    for place, clip in enumerate(clips):
        alone = audio_stats(*join([clip]), RATE, path=path)
        for name in NAMES:
            # the sums of a row of frames may be taken in another order
            torch.testing.assert_close(getattr(together, name)[place], getattr(alone, name)[0], rtol=1e-13, atol=1e-15)


def test_a_clip_longer_than_a_block_of_the_host_is_the_definition() -> None:
    samples, offsets = join(noise([70_001, 66_000]))
    expected = audio_stats_reference(samples, offsets, RATE, FRAME, 40.0)
    assert_close(audio_stats(samples, offsets, RATE, path="torch"), expected, 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples_S": torch.zeros(4, dtype=torch.int16)}, "audio_stats: samples are torch.int16; give floating"),
        ({"samples_S": torch.zeros(2, 2)}, "audio_stats: the values have shape (2, 2); give all rows in one"),
        ({"offsets_C1": torch.tensor([0, 3])}, "audio_stats: offsets run from 0 to 3; there are 4 values from 0"),
        ({"sample_rate": 0}, "audio_stats: sample_rate is 0; give samples per second, such as 16000"),
        ({"below_db": 0.0}, "audio_stats: below_db is 0.0; give a positive number, such as 40"),
        ({"below_db": math.nan}, "audio_stats: below_db is nan; give a positive number"),
        ({"frame_seconds": 1e-6}, "audio_stats: frame_seconds is 1e-06, 0 samples at 16000 Hz; give 1 to"),
        ({"frame_seconds": math.inf}, "audio_stats: frame_seconds is inf, 0 samples"),
        ({"path": "cuda"}, "audio_stats: path is 'cuda'; choose from auto, torch, triton"),
    ],
)
def test_a_wrong_argument_is_named(change, message: str) -> None:
    arguments = {"samples_S": torch.zeros(4), "offsets_C1": torch.tensor([0, 4]), "sample_rate": RATE} | change
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        audio_stats(**arguments)
    assert message in str(caught.value)


def test_the_launch_follows_the_frame() -> None:
    assert fused.pick(320) == fused.CONFIGS[0]
    assert fused.pick(960) == fused.CONFIGS[1]


def test_every_launch_is_a_variant() -> None:
    variants = fused.variants()
    assert len({variant.name for variant in variants}) == len(variants)
    for variant in variants:
        assert set(variant.signature) | set(variant.constants) == set(variant.kernel.arg_names)
