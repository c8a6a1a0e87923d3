"""Make one voice sound like many: pitch and formants, room, tone, telephone band, noise.

For training alone, after the gates. Clips are mono float32 at 16 kHz; every function is deterministic in its
`random.Random`.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from tercet_audio.training import SpeechTraining

RATE = 16_000
Clip = npt.NDArray[np.float32]
MU = 255.0
TONE_HZ = (0, 500, 1500, 3000, 5000, 8000)


def augment(clip: Clip, settings: SpeechTraining, draw: random.Random) -> Clip:
    """Change a clip as another speaker, room or line would."""
    slowest, fastest = settings.speeds
    changed = shift_speed(clip, draw.uniform(slowest, fastest))
    if settings.room_fraction:
        changed = maybe_in_a_room(changed, settings.room_fraction, draw)
    which = draw.random()
    if which < settings.telephone_fraction:
        changed = telephone(changed)
    elif which < settings.telephone_fraction + settings.tone_fraction:
        changed = tilt(changed, [draw.uniform(-8, 8) for _ in TONE_HZ])
    if draw.random() < settings.noise_fraction:
        changed = add_noise(changed, draw.uniform(10, 35), draw.randrange(2**31))
    return (changed * draw.uniform(0.4, 1.4)).clip(-1, 1).astype(np.float32)


def maybe_in_a_room(clip: Clip, fraction: float, draw: random.Random) -> Clip:
    """Put a share of clips into a room; `draw` stays where it is, so that a room changes nothing else of a clip."""
    from tercet_audio.room import in_a_room  # it builds on this module

    own = random.Random(repr(draw.getstate()))
    return in_a_room(clip, own) if own.random() < fraction else clip


def shift_speed(clip: Clip, factor: float) -> Clip:
    """Resample as if played `factor` times as fast: moves pitch, formants and tempo together (Ko et al. 2015)."""
    shifted: Clip = soxr.resample(clip, RATE, round(RATE / factor)).astype(np.float32)
    return shifted


def telephone(clip: Clip) -> Clip:
    """Pass a clip through a telephone line: 8 kHz, 300-3400 Hz, mu-law in 8 bits (ITU-T G.711)."""
    narrow = soxr.resample(clip, RATE, RATE // 2)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 2 / RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    band = np.fft.irfft(spectrum, len(narrow)).clip(-1, 1)
    pressed = np.sign(band) * np.log1p(MU * np.abs(band)) / np.log1p(MU)
    steps = np.round(pressed * 127) / 127
    restored = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU
    widened: Clip = soxr.resample(restored, RATE // 2, RATE).astype(np.float32)
    return widened


def tilt(clip: Clip, gains_db: list[float]) -> Clip:
    """Change the tone: gains in decibels at TONE_HZ, straight lines between."""
    spectrum: Any = np.fft.rfft(clip)
    hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
    gain = np.interp(hertz, TONE_HZ, [10 ** (decibel / 20) for decibel in gains_db])
    return np.fft.irfft(spectrum * gain, len(clip)).astype(np.float32)


def add_noise(clip: Clip, signal_to_noise_db: float, seed: int) -> Clip:
    """Add white noise at a signal-to-noise ratio in decibels, against the clip's own power."""
    power = float(np.sqrt(np.mean(np.square(clip)))) * 10 ** (-signal_to_noise_db / 20)
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(len(clip))
    return (clip + power * noise).astype(np.float32)
