"""What every spoken clip goes through: 16 kHz, little silence at its ends, one loudness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from tercet_audio.augment import RATE, Clip

MAX_EDGE_SECONDS = 0.15
FRAME = RATE // 100  # 10 ms
EDGE_BELOW_DB = 45.0  # against the loudest frame; a final fricative lies about 35 dB below a vowel
LOUDNESS_DB = -23.0  # RMS against full scale: where EBU R 128 puts programmes, and no speech peak reaches full scale
MAX_PEAK = 0.89  # -1 dB
MAX_GAIN_DB = 20.0  # what is quieter than this can mend is broken, and the silence gate must still see that


def finish(samples: npt.NDArray[np.float32], rate: int) -> Clip:
    """Resample to 16 kHz, trim the ends and bring to the common loudness.

    Engines differ by over 10 dB and by a second of silence: a model, and every threshold of a gate, would hear which
    engine spoke rather than what was said.
    """
    return normalise(trim(to_16_khz(samples, rate)))


def to_16_khz(samples: npt.NDArray[np.float32], rate: int) -> Clip:
    """Resample mono samples."""
    resampled = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    return resampled.astype(np.float32)


def trim(clip: Clip) -> Clip:
    """Leave at most MAX_EDGE_SECONDS of silence at either end; a clip without any sound stays whole."""
    count = len(clip) // FRAME
    power = np.mean(np.square(clip[: count * FRAME], dtype=np.float64).reshape(count, FRAME), axis=1)
    if not count or not power.max():
        return clip
    loud = np.flatnonzero(power > power.max() * 10 ** (-EDGE_BELOW_DB / 10))
    edge = round(MAX_EDGE_SECONDS * RATE)
    start = max(0, int(loud[0]) * FRAME - edge)
    # the samples after the last whole frame belong to the last frame
    end = len(clip) if loud[-1] == count - 1 else (int(loud[-1]) + 1) * FRAME
    return clip[start : min(len(clip), end + edge)]


def normalise(clip: Clip) -> Clip:
    """Scale to LOUDNESS_DB, less where a peak would pass MAX_PEAK, and never up by more than MAX_GAIN_DB."""
    peak = float(np.abs(clip).max(initial=0))
    if not peak:
        return clip
    rms = float(np.sqrt(np.mean(np.square(clip, dtype=np.float64))))
    gain = min(10 ** (LOUDNESS_DB / 20) / rms, MAX_PEAK / peak, 10 ** (MAX_GAIN_DB / 20))
    return (clip * gain).astype(np.float32)
