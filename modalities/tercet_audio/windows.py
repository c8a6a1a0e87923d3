"""Training windows for Whisper: several clips packed into 30 seconds, their texts joined."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercet.records import Record
from tercet_audio.augment import RATE, Clip, augment
from tercet_audio.payload import decode_clip
from tercet_audio.training import SpeechTraining

MOST_SECONDS = 30
FULL_SECONDS = 28  # two seconds of room: Whisper hears 30 and no sample may be cut
SHORT_SECONDS = (4, 9)
GAP_SECONDS = (0.15, 0.6)


@dataclass(frozen=True)
class Spoken:
    """One clip with its text."""

    samples: Clip
    text: str


@dataclass(frozen=True)
class Window:
    """Up to 30 seconds of speech with the joined text."""

    samples: Clip
    text: str


def read_spoken(records: Iterable[Record]) -> list[Spoken]:
    """Decode records' clips."""
    return [Spoken(decode_clip(record.payload["audio"]), record.payload["text"]) for record in records]


def pack(clips: Sequence[Spoken], settings: SpeechTraining, seed: int) -> list[Window]:
    """Make windows of `settings.variants` augmented copies of every clip; each copy is in exactly one window.

    A copy that comes out longer than Whisper hears is left out, never cut.
    """
    draw = random.Random(seed)
    windows: list[Window] = []
    for _ in range(settings.variants):
        order = list(clips)
        draw.shuffle(order)
        held: list[Spoken] = []
        used, room = 0.0, _room(settings, draw)
        for clip in order:
            changed = Spoken(augment(clip.samples, settings, draw), clip.text)
            if len(changed.samples) > MOST_SECONDS * RATE:
                continue  # slowed down beyond what Whisper hears: its last words would be text without sound
            seconds = len(changed.samples) / RATE + GAP_SECONDS[1]
            if held and used + seconds > room:
                windows.append(_join(held, draw))
                held, used, room = [], 0.0, _room(settings, draw)
            held.append(changed)
            used += seconds
        if held:
            windows.append(_join(held, draw))
    return windows


def _room(settings: SpeechTraining, draw: random.Random) -> float:
    return draw.choice(SHORT_SECONDS) if draw.random() < settings.short_windows else FULL_SECONDS


def _join(clips: Sequence[Spoken], draw: random.Random) -> Window:
    parts: list[npt.NDArray[np.float32]] = []
    for clip in clips:
        parts += [clip.samples, np.zeros(int(draw.uniform(*GAP_SECONDS) * RATE), np.float32)]
    return Window(np.concatenate(parts), " ".join(clip.text.strip() for clip in clips))
