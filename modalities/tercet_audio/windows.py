"""Training windows for Whisper: several clips packed into 30 seconds, their texts joined, encoded once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tercet.records import Record
from tercet_audio.augment import RATE, Clip, augment
from tercet_audio.payload import decode_clip
from tercet_audio.training import SpeechTraining

if TYPE_CHECKING:
    import torch

FULL_SECONDS = 28  # two seconds of room: Whisper hears 30 and no sample may be cut
SHORT_SECONDS = (4, 9)
GAP_SECONDS = (0.15, 0.6)
MAX_LABELS = 448  # Whisper's decoder positions
IGNORED = -100


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
    """Make windows of `settings.variants` augmented copies of every clip; each copy is in exactly one window."""
    draw = random.Random(seed)
    windows: list[Window] = []
    for _ in range(settings.variants):
        order = list(clips)
        draw.shuffle(order)
        held: list[Spoken] = []
        used, room = 0.0, _room(settings, draw)
        for clip in order:
            changed = Spoken(augment(clip.samples, settings, draw), clip.text)
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


class WindowBatches:
    """Micro-batches of windows: which ones depends on the step alone."""

    def __init__(
        self,
        windows: Sequence[Window],
        replay: Sequence[Window],
        tokens: Tokens,
        micro_batch: int,
        replay_batch: int,
        seed: int,
    ) -> None:
        self.windows, self.replay = windows, replay
        self.tokens, self.seed = tokens, seed
        self.micro_batch, self.replay_batch = micro_batch, replay_batch if replay else 0
        self.encoded: list[torch.Tensor] = []
        self.replay_encoded: list[torch.Tensor] = []

    def encode(self, encode: Callable[[Sequence[Clip]], torch.Tensor], on_units: Callable[[int, int], None]) -> None:
        """Run the frozen encoder once over every window, four at a time."""
        total = len(self.windows) + len(self.replay)
        for windows, kept in ((self.windows, self.encoded), (self.replay, self.replay_encoded)):
            for start in range(0, len(windows), 4):
                kept.extend(encode([window.samples for window in windows[start : start + 4]]))
                on_units(len(self.encoded) + len(self.replay_encoded), total)

    def batch(self, step: int, micro: int) -> dict[str, Any]:
        """Give the windows of one micro-batch and its share of replay."""
        count = step * 64 + micro  # accumulation stays below 64
        own = self._chosen(len(self.windows), self.micro_batch, count, "own")
        general = self._chosen(len(self.replay), self.replay_batch, count, "replay")
        return {
            "own": self._gather(self.windows, self.encoded, own),
            "replay": self._gather(self.replay, self.replay_encoded, general) if general else None,
        }

    def _chosen(self, total: int, size: int, count: int, what: str) -> list[int]:
        """Walk through a fresh permutation per pass, so that every window is used equally often."""
        chosen = []
        for position in range(count * size, (count + 1) * size):
            at_pass, place = divmod(position, total)
            order = list(range(total))
            random.Random(f"{self.seed}/{what}/{at_pass}").shuffle(order)
            chosen.append(order[place])
        return chosen

    def _gather(
        self, windows: Sequence[Window], encoded: Sequence[torch.Tensor], chosen: Sequence[int]
    ) -> dict[str, Any]:
        import torch

        inputs, labels = self.tokens.batch([windows[at].text for at in chosen])
        gathered: dict[str, Any] = {"inputs": inputs, "labels": labels}
        if encoded:
            gathered["encoded"] = torch.stack([encoded[at] for at in chosen])
        else:
            gathered["samples"] = [windows[at].samples for at in chosen]
        return gathered

    def describe(self) -> dict[str, Any]:
        """Say what the data holds."""
        full = sum(len(window.samples) for window in self.windows) / RATE
        return {
            "windows": len(self.windows),
            "replay_windows": len(self.replay),
            "seconds": round(full, 1),
            "padding": round(1 - full / (30 * max(1, len(self.windows))), 3),
            "encoder_cached": bool(self.encoded),
        }


class Tokens:
    """Whisper's labels: one start token, language and task where the model has them, text, one end token."""

    def __init__(self, tokenizer: Any, prefix: Sequence[int], end: int) -> None:
        self.tokenizer, self.prefix, self.end = tokenizer, list(prefix), end

    def __call__(self, text: str) -> list[int]:
        """Give prefix, text and end."""
        words: list[int] = self.tokenizer(" " + text.strip(), add_special_tokens=False).input_ids
        return [*self.prefix, *words, self.end]

    def fits(self, text: str) -> bool:
        """Say whether the labels fit Whisper's decoder; longer ones are left out, never cut."""
        return len(self(text)) <= MAX_LABELS

    def batch(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give decoder inputs and labels [N, L]: padding and the forced prefix carry no loss, the end token does."""
        import torch

        rows = [self(text) for text in texts]
        longest = max(len(row) for row in rows) - 1
        inputs = torch.full((len(rows), longest), self.end)
        labels = torch.full((len(rows), longest), IGNORED)
        for at, row in enumerate(rows):
            inputs[at, : len(row) - 1] = torch.tensor(row[:-1])
            labels[at, len(self.prefix) - 1 : len(row) - 1] = torch.tensor(row[len(self.prefix) :])
        return inputs, labels
