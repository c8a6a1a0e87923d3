"""From frames to clips: what a clip's frames say of its loudness, its silences and its noise.

The samples have been read by then; frames are a few hundredths of them. Rows of clips are filled up to the longest, in
blocks of BLOCK_FRAMES, so that one long clip among many costs no memory.
Shapes: C clips, F frames of all clips, N frames of the longest clip of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

QUIETEST = 1e-10  # the power of -100 dB: digital silence has a level too
NOISE, SIGNAL = 0.10, 0.95  # quantiles of the frames' levels
BLOCK_FRAMES = 1 << 21  # 16 MiB of fp64


@dataclass(frozen=True)
class AudioStats:
    """Statistics of C clips, each an fp64 tensor of length C: limits such as 0.3 mean the same in it and in Python.

    Levels are relative to full scale 1. A clip without samples has zeros, and is nothing but silence.
    """

    seconds: Tensor
    peak: Tensor
    """The largest magnitude."""
    rms: Tensor
    dc: Tensor
    """The mean."""
    clipped_share: Tensor
    """The share of samples at full scale: 0.999 or more."""
    zero_crossing_rate: Tensor
    """The share of neighbouring samples of which one is below zero and one isn't."""
    silence_ratio: Tensor
    """The share of silent frames."""
    leading_silence_seconds: Tensor
    trailing_silence_seconds: Tensor
    longest_pause_seconds: Tensor
    """The longest silence between two sounds."""
    snr_db: Tensor
    """The 95th percentile of the frames' levels less the 10th."""


@dataclass(frozen=True)
class Framing:
    """How clips fall into frames: `frame` samples each, the last one of a clip filled up with zeros."""

    offsets_C1: Tensor
    rate: int
    frame: int

    def count_samples(self) -> Tensor:
        """Count each clip's samples."""
        return self.offsets_C1.diff()

    def count_frames(self) -> Tensor:
        """Count each clip's frames."""
        return (self.count_samples() + self.frame - 1) // self.frame

    def edges(self) -> Tensor:
        """Say where each clip's frames begin among all frames."""
        frames_C = self.count_frames()
        return torch.cat([frames_C.new_zeros(1), frames_C.cumsum(0)])


@dataclass(frozen=True)
class Totals:
    """What is added up over the samples of each of C clips, in fp64."""

    square_C: Tensor
    sum_C: Tensor
    peak_C: Tensor
    clipped_C: Tensor
    crossings_C: Tensor


def conclude(framing: Framing, square_F: Tensor, totals: Totals, below_db: float) -> AudioStats:
    """Sum up from the sum of squares of each frame, and the totals of each clip.

    Raises ValueError for NaN or infinity in a clip, and names it.
    """
    check_finite(totals.peak_C)
    samples_C = framing.count_samples().double()
    some_C = samples_C.clamp(min=1)
    parts = [_frame_stats(*row, below_db) for row in rows_of(framing, square_F.double() / framing.frame)]
    share_C, leading_C, trailing_C, pause_C, snr_C = (torch.cat(column) for column in zip(*parts, strict=True))
    return AudioStats(
        seconds=samples_C / framing.rate,
        peak=totals.peak_C,
        rms=(totals.square_C / some_C).sqrt(),
        dc=totals.sum_C / some_C,
        clipped_share=totals.clipped_C / some_C,
        zero_crossing_rate=totals.crossings_C / (samples_C - 1).clamp(min=1),
        silence_ratio=share_C,
        leading_silence_seconds=leading_C.double() * framing.frame / framing.rate,
        trailing_silence_seconds=trailing_C.double() * framing.frame / framing.rate,
        longest_pause_seconds=pause_C.double() * framing.frame / framing.rate,
        snr_db=snr_C,
    )


def check_finite(peak_C: Tensor) -> None:
    """Refuse clips whose peak is no number: a NaN or an infinity among the samples is one in the peak."""
    wrong = (~peak_C.isfinite()).nonzero().flatten().tolist()
    if wrong:
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(f"audio_stats: clip {wrong[0]}{others} has samples that are NaN or infinite; remove it")


def rows_of(framing: Framing, values_F: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of clips as rows of frames, filled up with zeros, and the frames that each row really has."""
    edges_C1, frames_C = framing.edges(), framing.count_frames()
    filled_F1 = torch.cat([values_F, values_F.new_zeros(1)])
    counts = frames_C.tolist()
    for first, end in _blocks(counts):
        frames_B = frames_C[first:end]
        place_N = torch.arange(max(counts[first:end], default=0) or 1, device=values_F.device)
        index_BN = torch.where(place_N < frames_B[:, None], edges_C1[first:end, None] + place_N, len(values_F))
        yield filled_F1[index_BN], frames_B


def _blocks(counts: list[int]) -> Iterator[tuple[int, int]]:
    first, longest = 0, 0
    for clip, count in enumerate(counts):
        longest = max(longest, count)
        if (clip + 1 - first) * longest > BLOCK_FRAMES and clip > first:
            yield first, clip
            first, longest = clip, count
    yield first, len(counts)


def _frame_stats(power_BN: Tensor, frames_B: Tensor, below_db: float) -> tuple[Tensor, ...]:
    """Return the silent share, the silent frames before, after and between sounds, and the noise distance in dB."""
    place_N = torch.arange(power_BN.shape[1], device=power_BN.device)
    is_frame_BN = place_N < frames_B[:, None]
    # silence throughout is silent: its loudest frame is no louder than the limit, 0
    is_sound_BN = is_frame_BN & (power_BN > power_BN.amax(1, keepdim=True) * 10 ** (-below_db / 10))
    leading_B = torch.where(is_sound_BN, place_N, frames_B[:, None]).amin(1).clamp(max=frames_B)
    latest_BN = torch.where(is_sound_BN, place_N, -1).cummax(1).values
    trailing_B = frames_B - 1 - latest_BN[:, -1]
    before_BN = torch.cat([torch.full_like(latest_BN[:, :1], -1), latest_BN[:, :-1]], dim=1)
    pause_B = torch.where(is_sound_BN & (before_BN >= 0), place_N - 1 - before_BN, 0).amax(1)
    silent_B = frames_B - is_sound_BN.sum(1)
    share_B = torch.where(frames_B > 0, silent_B.double() / frames_B.clamp(min=1), 1.0)
    level_BN = torch.where(is_frame_BN, 10 * power_BN.clamp(min=QUIETEST).log10(), torch.inf)
    sorted_BN = level_BN.sort(1).values
    snr_B = _quantile(sorted_BN, frames_B, SIGNAL) - _quantile(sorted_BN, frames_B, NOISE)
    return share_B, leading_B, trailing_B, pause_B, torch.where(frames_B > 0, snr_B, 0.0)


def _quantile(sorted_BN: Tensor, frames_B: Tensor, share: float) -> Tensor:
    """Interpolate between the two nearest frames, as numpy and torch do."""
    place_B = (frames_B - 1).clamp(min=0).double() * share
    below_B = place_B.floor().long()
    above_B = torch.minimum(below_B + 1, (frames_B - 1).clamp(min=0))
    low_B = sorted_BN.gather(1, below_B[:, None])[:, 0]
    high_B = sorted_BN.gather(1, above_B[:, None])[:, 0]
    return torch.lerp(low_B, high_B, place_B - below_B)
