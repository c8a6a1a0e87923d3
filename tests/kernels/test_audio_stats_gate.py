"""Statistics of clips as the silence gate of speech needs them: bit for bit what one clip at a time in numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet_kernels.audio_stats import audio_stats

RATE = 16_000
FRAME = RATE // 50


def silent_frames(clip: np.ndarray, below_db: float) -> np.ndarray:
    """Say of each 20 ms frame whether it lies more than `below_db` under the loudest; a last short one counts too."""
    count = -(-len(clip) // FRAME)
    padded = np.zeros(count * FRAME)
    padded[: len(clip)] = clip
    power = np.square(padded).reshape(count, FRAME).mean(axis=1)
    silent: np.ndarray = power <= power.max() * 10 ** (-below_db / 10)
    return silent


def pauses(silent: np.ndarray) -> list[float]:
    """List the seconds of silence before the first sound, between sounds, and after the last."""
    edges = np.concatenate([[-1], np.flatnonzero(~silent), [len(silent)]])
    seconds: list[float] = ((np.diff(edges) - 1) * FRAME / RATE).tolist()
    return seconds


def speech_like(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    length = int(generator.integers(FRAME, 3 * RATE))
    gain = np.repeat(10 ** generator.uniform(-4, 0, length // 900 + 1), 900)[:length]
    return (generator.standard_normal(length) * gain * 0.1).astype(np.float32)


@pytest.mark.parametrize("below_db", [25.0, 40.0])
def test_silences_are_those_of_one_clip_at_a_time_bit_for_bit(below_db: float) -> None:
    clips = [speech_like(seed) for seed in range(20)]
    offsets = torch.tensor([0, *np.cumsum([len(clip) for clip in clips])])
    stats = audio_stats(torch.from_numpy(np.concatenate(clips)), offsets, RATE, below_db=below_db)
    for place, clip in enumerate(clips):
        silent = silent_frames(clip, below_db)
        first, *gaps, last = pauses(silent)
        assert stats.seconds[place].item() == len(clip) / RATE
        assert stats.peak[place].item() == float(np.abs(clip).max())
        assert stats.silence_ratio[place].item() == float(silent.mean())
        assert stats.leading_silence_seconds[place].item() == first
        assert stats.trailing_silence_seconds[place].item() == last
        assert stats.longest_pause_seconds[place].item() == max(gaps, default=0.0)
