"""A synthetic room for a clip: the direct sound, then noise that dies away (Polack's model of late reverberation).

No file is needed, and a seed gives the same room on every machine. The convolution is torchaudio's where it can be
imported, else scipy's; a test holds the two together.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from tercet.compat import find_torchaudio
from tercet_audio.augment import RATE, Clip

RT60_SECONDS = (0.15, 0.6)  # a furnished room to a bare hall: how long until the echo is 60 dB down
DIRECT_DB = (0.0, 12.0)  # the direct sound's power against that of all echoes: across the room to at arm's length


def in_a_room(clip: Clip, draw: random.Random) -> Clip:
    """Hear a clip in a room drawn at random."""
    response = impulse_response(draw.uniform(*RT60_SECONDS), draw.uniform(*DIRECT_DB), draw.randrange(2**31))
    return reverberate(clip, response)


def impulse_response(rt60_seconds: float, direct_db: float, seed: int) -> Clip:
    """Make a room's response: 1 at once, then noise that falls by 60 dB in `rt60_seconds`."""
    length = max(2, round(rt60_seconds * RATE))
    response: Clip = np.random.Generator(np.random.PCG64(seed)).standard_normal(length).astype(np.float32)
    response *= 10 ** (-3 * np.arange(length, dtype=np.float32) / length)
    response[0] = 0
    response *= 10 ** (-direct_db / 20) / np.linalg.norm(response)
    response[0] = 1
    return response


def reverberate(clip: Clip, response: Clip) -> Clip:
    """Pass a clip through a room; it keeps its length and its power, and the echo of its end is cut off."""
    wet = convolve(clip, response)[: len(clip)]
    power = np.linalg.norm(wet)
    return wet * (np.linalg.norm(clip) / power) if power else wet


def convolve(clip: Clip, response: Clip) -> Clip:
    """Convolve in full, by torchaudio or by scipy."""
    functional = find_torchaudio()
    return _by_scipy(clip, response) if functional is None else _by_torchaudio(functional, clip, response)


def _by_torchaudio(functional: Any, clip: Clip, response: Clip) -> Clip:
    import torch

    convolved: Clip = functional.fftconvolve(torch.from_numpy(clip), torch.from_numpy(response)).numpy()
    return convolved


def _by_scipy(clip: Clip, response: Clip) -> Clip:
    from scipy.signal import fftconvolve

    convolved: Clip = fftconvolve(clip, response).astype(np.float32)
    return convolved
