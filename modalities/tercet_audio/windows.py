"""Training windows for Whisper: several clips packed into 30 seconds, each with its place and its text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
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
    num_tokens: int = 0  # of its text and its times


@dataclass(frozen=True)
class Segment:
    """One clip's place in a window, in seconds, and its text."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Window:
    """Up to 30 seconds of speech; its labels hold the segments' times where `has_timestamps`."""

    samples: Clip
    segments: tuple[Segment, ...]
    records: tuple[str, ...] = ()
    has_timestamps: bool = False

    @property
    def text(self) -> str:
        """The segments' texts, joined."""
        return " ".join(segment.text for segment in self.segments)


def read_spoken(records: Iterable[Record], count: Callable[[str], int]) -> list[Spoken]:
    """Decode records' clips; `count` says how many tokens a text has."""
    return [
        Spoken(decode_clip(record.payload["audio"]), record.payload["text"], record.id, count(record.payload["text"]))
        for record in records
    ]


def pack(
    clips: Sequence[Spoken],
    settings: SpeechTraining,
    seed: int,
    weights: Sequence[float] | None = None,
    most_tokens: int = 1 << 30,
) -> list[Window]:
    """Make windows of `settings.variants` augmented copies of every clip; each copy is in exactly one window.

    With `weights` a clip has as many copies as its weight says, on average. No window has more than `most_tokens`. A
    copy that comes out longer than Whisper hears is left out, never cut.
    """
    draw = random.Random(seed)
    windows: list[Window] = []

    def close(held: Sequence[Spoken]) -> None:
        # apart from `draw`: another share of windows with times changes no sample
        is_timed = random.Random(f"{seed}/timestamps/{len(windows)}").random() < settings.timestamps
        windows.append(_join(held, draw, is_timed=is_timed))

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
            is_full = used + seconds > room or sum(one.num_tokens for one in [*held, changed]) > most_tokens
            if held and is_full:
                close(held)
                held, used, room = [], 0.0, _room(settings, draw)
            held.append(changed)
            used += seconds
        if held:
            close(held)
    return windows


def _room(settings: SpeechTraining, draw: random.Random) -> float:
    return draw.choice(SHORT_SECONDS) if draw.random() < settings.short_windows else FULL_SECONDS


def _join(clips: Sequence[Spoken], draw: random.Random, *, is_timed: bool) -> Window:
    parts: list[npt.NDArray[np.float32]] = []
    segments: list[Segment] = []
    start = 0
    for clip in clips:
        end = start + len(clip.samples)
        segments.append(Segment(start / RATE, end / RATE, clip.text.strip()))
        parts += [clip.samples, np.zeros(int(draw.uniform(*GAP_SECONDS) * RATE), np.float32)]
        start = end + len(parts[-1])
    records = tuple(clip.record for clip in clips if clip.record)
    return Window(np.concatenate(parts[:-1]), tuple(segments), records, is_timed)  # without the gap after the last clip
