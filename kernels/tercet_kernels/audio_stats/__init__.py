"""Statistics of clips: peak, loudness, offset, clipping, silences, noise; each sample is read once.

Clips are ragged: all their samples in one tensor, and where each begins (`tercet_kernels.ragged`).
Shapes: S samples of all clips, C clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tercet_kernels.audio_stats.host import audio_stats_on_host
from tercet_kernels.audio_stats.reference import CLIPPED, audio_stats_reference
from tercet_kernels.audio_stats.summary import AudioStats, Framing
from tercet_kernels.dispatch import choose_path
from tercet_kernels.ragged import check_rows

__all__ = ["CLIPPED", "AudioStats", "audio_stats"]

LONGEST_FRAME = 1 << 20  # a frame's counts stay exact in fp32


@torch.no_grad()
def audio_stats(
    samples_S: Tensor,
    offsets_C1: Tensor,
    sample_rate: int,
    *,
    frame_seconds: float = 0.02,
    below_db: float = 40.0,
    path: str = "auto",
) -> AudioStats:
    """Measure each clip; see `AudioStats`. All results are fp64, on the samples' device.

    Silence is judged over frames of `frame_seconds`, rounded to samples: those that lie `below_db` or more under the
    clip's loudest frame. Deterministic. The Triton path sums frames in fp32, the others sum in fp64.

    Raises ValueError for a clip with NaN or infinity, and names it; for samples that aren't floating point, offsets
    that don't fit, a rate or a frame that isn't positive.
    """
    if not samples_S.is_floating_point():
        raise ValueError(f"audio_stats: samples are {samples_S.dtype}; give floating point with full scale 1")
    check_rows("audio_stats", samples_S, offsets_C1)
    if sample_rate < 1:
        raise ValueError(f"audio_stats: sample_rate is {sample_rate}; give samples per second, such as 16000")
    if not (math.isfinite(below_db) and below_db > 0):
        raise ValueError(f"audio_stats: below_db is {below_db}; give a positive number, such as 40")
    frame = round(frame_seconds * sample_rate) if math.isfinite(frame_seconds) else 0
    if not 1 <= frame <= LONGEST_FRAME:
        raise ValueError(
            f"audio_stats: frame_seconds is {frame_seconds}, {frame} samples at {sample_rate} Hz; give 1 to "
            f"{LONGEST_FRAME} samples"
        )
    framing = Framing(offsets_C1, sample_rate, frame)
    if choose_path("audio_stats", samples_S, path).is_triton:
        from tercet_kernels.audio_stats.fused import audio_stats_fused

        return audio_stats_fused(samples_S.contiguous(), framing, below_db)
    if samples_S.device.type == "cpu":
        return audio_stats_on_host(samples_S, framing, below_db)
    return audio_stats_reference(samples_S, offsets_C1, sample_rate, frame, below_db)
