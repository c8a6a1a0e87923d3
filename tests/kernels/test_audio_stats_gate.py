"""Statistics of clips against the audio gate's own functions: the same numbers, so that the gate could ask for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet_audio.augment import RATE
from tercet_audio.gates.signal import FRAME, pauses, silent_frames
from tercet_kernels.audio_stats import audio_stats


def speech_like(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    length = int(generator.integers(FRAME, 3 * RATE))
    gain = np.repeat(10 ** generator.uniform(-4, 0, length // 900 + 1), 900)[:length]
    return (generator.standard_normal(length) * gain * 0.1).astype(np.float32)


@pytest.mark.parametrize("below_db", [25.0, 40.0])
def test_silences_are_the_gates_bit_for_bit(below_db: float) -> None:
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
