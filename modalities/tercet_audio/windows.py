"""Training windows for Whisper: several clips packed into 30 seconds, their texts joined."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tercet.records import Record
from tercet.train.mixing import draw_pass
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
    record: str = ""  # its id


@dataclass(frozen=True)
class Window:
    """Up to 30 seconds of speech with the joined text."""

    samples: Clip
    text: str
    records: tuple[str, ...] = ()


def read_spoken(records: Iterable[Record]) -> list[Spoken]:
    """Decode records' clips."""
    return [Spoken(decode_clip(record.payload["audio"]), record.payload["text"], record.id) for record in records]


def pack(
    clips: Sequence[Spoken], settings: SpeechTraining, seed: int, weights: Sequence[float] | None = None
) -> list[Window]:
    """Make windows of `settings.variants` augmented copies of every clip; each copy is in exactly one window.

    With `weights` a clip has as many copies as its weight says, on average. A copy that comes out longer than Whisper
    hears is left out, never cut.
    """
    draw = random.Random(seed)
    windows: list[Window] = []
    for variant in range(settings.variants):
        chosen = range(len(clips)) if weights is None else draw_pass(weights, f"{seed}/pass/{variant}")
        order = [clips[at] for at in chosen]
        draw.shuffle(order)
        held: list[Spoken] = []
        used, room = 0.0, _room(settings, draw)
        for clip in order:
            changed = replace(clip, samples=augment(clip.samples, settings, draw))
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
    text = " ".join(clip.text.strip() for clip in clips)
    return Window(np.concatenate(parts), text, tuple(clip.record for clip in clips if clip.record))
