"""Statistics of clips, defined: one clip after another, in fp64.

Shapes: S samples of all clips, C clips, N frames of a clip, T samples of a frame.
"""

from __future__ import annotations

import itertools
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from tercet_kernels.audio_stats.summary import NOISE, QUIETEST, SIGNAL, AudioStats, check_finite

CLIPPED = 0.999  # of full scale: 16 bits and a resampler's rounding end a little below 1


def audio_stats_reference(samples_S: Tensor, offsets_C1: Tensor, rate: int, frame: int, below_db: float) -> AudioStats:
    """Compute the statistics of `AudioStats`, in fp64.

    A frame's power is its sum of squares over `frame`, the last one filled up with zeros. A frame `below_db` or more
    under the clip's loudest one is silent. Levels stop at -100 dB.
    """
    clips = [samples_S[start:end].double() for start, end in itertools.pairwise(offsets_C1.tolist())]
    rows = torch.tensor([_clip_stats(clip, rate, frame, below_db) for clip in clips], dtype=torch.float64)
    stats = AudioStats(*rows.reshape(len(clips), len(fields(AudioStats))).T.to(samples_S.device))
    check_finite(stats.peak)
    return stats


def _clip_stats(clip: Tensor, rate: int, frame: int, below_db: float) -> tuple[float, ...]:
    """Give one clip's statistics, in the order of `AudioStats`."""
    if not len(clip):
        return 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0
    power_N = pad(clip, (0, -len(clip) % frame)).reshape(-1, frame).square().mean(1)
    negative = clip < 0
    is_silent_N = power_N <= power_N.max() * 10 ** (-below_db / 10)
    leading, *pauses, trailing = _silences(~is_silent_N)
    level_N = 10 * power_N.clamp(min=QUIETEST).log10()
    return (
        len(clip) / rate,
        float(clip.abs().max()),
        float(clip.square().mean().sqrt()),
        float(clip.mean()),
        float((clip.abs() >= CLIPPED).double().mean()),
        float((negative[1:] != negative[:-1]).sum()) / max(len(clip) - 1, 1),
        float(is_silent_N.double().mean()),
        leading * frame / rate,
        trailing * frame / rate,
        max(pauses, default=0) * frame / rate,
        float(level_N.quantile(SIGNAL) - level_N.quantile(NOISE)),
    )


def _silences(is_sound_N: Tensor) -> list[int]:
    """List the silent frames before the first sound, between sounds, and after the last; all of them twice if none."""
    sounds = is_sound_N.nonzero().flatten().tolist()
    if not sounds:
        return [len(is_sound_N)] * 2
    return [after - before - 1 for before, after in itertools.pairwise([-1, *sounds, len(is_sound_N)])]
