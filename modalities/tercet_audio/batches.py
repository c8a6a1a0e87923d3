"""Micro-batches of windows for Whisper; the outputs of a frozen encoder are kept where memory holds them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import NothingSurvived
from tercet.recipe import Train
from tercet.records import Record
from tercet.train.mixing import record_weights
from tercet.train.task import OnUnits, Row
from tercet_audio.augment import RATE, Clip
from tercet_audio.labels import MAX_LABELS, NO_TIMESTAMPS, START, TRANSCRIBE, Tokens
from tercet_audio.masking import mask, require_torchaudio
from tercet_audio.training import SpeechTraining
from tercet_audio.windows import MOST_SECONDS, Window, pack, read_spoken

if TYPE_CHECKING:
    import torch

HOP = RATE // 100  # Whisper's features come every 10 ms
ENCODED_AT_ONCE = 4
MAX_CACHED_GIB = 3.0  # a window of Whisper tiny takes 2.3 MB, one of large-v3 7.7 MB
MOST_NAMED = 8  # records in a sentence about those that were left out


def prepare(
    listen: Listener,
    clips: Sequence[Record],
    replay: Iterable[Record],
    training: SpeechTraining,
    train: Train,
    seed: int,
    on_units: OnUnits,
) -> WindowData:
    """Pack clips and replay into windows; run the encoder once over each where the adapter leaves it alone.

    Raises:
        NothingSurvived: no clip was accepted.
    """
    if not clips:
        raise NothingSurvived("no accepted clip to train on; tercet report shows why they were rejected")
    tokens = listen.tokens()
    own, left_out = _windows(clips, tokens, training, seed, train)
    if not own:
        raise NothingSurvived(
            f"no clip fits Whisper's 30 s and {MAX_LABELS} tokens; say shorter sentences ({'; '.join(left_out)})"
        )
    general, unfit = _windows(list(replay), tokens, training, seed + 1)
    left_out += [f"replay: {said}" for said in unfit]
    if training.spec_augment:
        require_torchaudio()
    data = WindowData(own, general, listen, seed, is_masked=training.spec_augment, left_out=left_out)
    if listen.is_frozen and (len(own) + len(general)) * listen.window_gib <= MAX_CACHED_GIB:
        data.encode(on_units)
    return data


def _windows(
    records: Sequence[Record], tokens: Tokens, training: SpeechTraining, seed: int, train: Train | None = None
) -> tuple[list[Window], list[str]]:
    """Pack the clips that Whisper's decoder can write; say which are left out."""
    counts = [tokens.count(record.payload["text"]) for record in records]
    kept = [record for record, count in zip(records, counts, strict=True) if 0 < count <= tokens.room]
    silent = [record.id for record, count in zip(records, counts, strict=True) if not count]
    long = [record.id for record, count in zip(records, counts, strict=True) if count > tokens.room]
    is_weighed = train is not None and (train.weights is not None or train.real_fraction is not None)
    weights = record_weights(kept, train) if train is not None and is_weighed else None
    windows = pack(read_spoken(kept, tokens.count), training, seed, weights, tokens.room)
    slow = len(kept) * training.variants - sum(len(window.segments) for window in windows)
    said = [f"{len(silent)} clips without text: {_named(silent)}"] if silent else []
    said += [f"{len(long)} clips of more than {tokens.room} tokens: {_named(long)}"] if long else []
    said += [f"{slow} copies of clips that are slowed down beyond 30 s"] if slow else []
    return windows, said


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


class Listener:
    """A model's front end: features of clips, the frozen encoder's outputs, and the tokeniser."""

    def __init__(self, model: Any, base: Path, language: str) -> None:
        from tercet_audio.transcribe import load_processor

        self.model, self.processor, self.language = model, load_processor(base), language

    def tokens(self) -> Tokens:
        """Give the tokeniser with what Whisper's decoder is started with: language and task where it has them."""
        tokenizer = self.processor.tokenizer
        names = [START, NO_TIMESTAMPS]
        if getattr(self.model.generation_config, "is_multilingual", False):
            names[1:1] = [f"<|{self.language.split('-', maxsplit=1)[0]}|>", TRANSCRIBE]
        prefix = [int(tokenizer.convert_tokens_to_ids(name)) for name in names]
        return Tokens(tokenizer, prefix, tokenizer.eos_token_id)

    @property
    def is_frozen(self) -> bool:
        """Say whether the encoder has no parameter to train."""
        return not any(value.requires_grad for value in self.model.get_encoder().parameters())

    @property
    def window_gib(self) -> float:
        """Give the size of one window's encoder output."""
        config = self.model.config
        return float(config.max_source_positions * config.d_model * self.model.dtype.itemsize / 2**30)

    def features(self, clips: Sequence[Clip], mask_seeds: Sequence[int] = ()) -> torch.Tensor:
        """Give log-mel features [N, mels, 3000], masked by a seed per clip where there are seeds."""
        import torch

        from tercet_audio.transcribe import log_mel

        found: torch.Tensor = log_mel(self.processor, clips)
        if mask_seeds:
            rows = zip(found, clips, mask_seeds, strict=True)
            found = torch.stack([mask(features, len(clip) // HOP, seed) for features, clip, seed in rows])
        return found.to(self.model.device, self.model.dtype)  # bf16 where training is

    def encode(self, clips: Sequence[Clip], mask_seeds: Sequence[int] = ()) -> torch.Tensor:
        """Give encoder outputs [N, 1500, D], without gradients."""
        import torch

        with torch.no_grad():
            encoded: torch.Tensor = self.model.get_encoder()(self.features(clips, mask_seeds)).last_hidden_state
        return encoded


class WindowData:
    """Windows of the domain and of replay; replay stays unmasked, for the base answers it too."""

    padded_to = float(MOST_SECONDS)
    unit = "s"

    def __init__(
        self,
        windows: Sequence[Window],
        replay: Sequence[Window],
        listen: Listener,
        seed: int,
        *,
        is_masked: bool = False,
        left_out: Sequence[str] = (),
    ) -> None:
        self.windows, self.replay_windows = windows, replay
        self.tokens, self.listen, self.seed = listen.tokens(), listen, seed
        self.rows: Sequence[Row] = [self._row(window) for window in windows]
        self.replay: Sequence[Row] = [self._row(window) for window in replay]
        self.is_masked = is_masked  # SpecAugment on `windows`
        self.left_out = list(left_out)  # in words: what isn't trained on, and why
        self.encoded: list[torch.Tensor] = []
        self.replay_encoded: list[torch.Tensor] = []

    def _row(self, window: Window) -> Row:
        _, learned = self.tokens(window)
        return Row(len(window.samples) / RATE, len(learned), window.records)

    def encode(self, on_units: OnUnits) -> None:
        """Run the frozen encoder once over every window."""
        total = len(self.windows) + len(self.replay_windows)
        for windows, kept in ((self.windows, self.encoded), (self.replay_windows, self.replay_encoded)):
            for start in range(0, len(windows), ENCODED_AT_ONCE):
                some = range(start, min(start + ENCODED_AT_ONCE, len(windows)))
                kept.extend(self.listen.encode([windows[at].samples for at in some], self._mask_seeds(windows, some)))
                on_units(len(self.encoded) + len(self.replay_encoded), total)

    def _mask_seeds(self, windows: Sequence[Window], chosen: Iterable[int]) -> list[int]:
        """Give each chosen window's seed: the same masks whether its encoder output is kept or made each time."""
        if not self.is_masked or windows is self.replay_windows:
            return []
        return [random.Random(f"{self.seed}/mask/{at}").getrandbits(62) for at in chosen]

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> dict[str, Any]:
        """Make a micro-batch: windows of the domain, and its share of replay."""
        return {
            "own": self._gather(self.windows, self.encoded, rows),
            "replay": self._gather(self.replay_windows, self.replay_encoded, replay) if replay else None,
        }

    def _gather(
        self, windows: Sequence[Window], encoded: Sequence[torch.Tensor], chosen: Sequence[int]
    ) -> dict[str, Any]:
        import torch

        inputs, labels = self.tokens.batch([windows[at] for at in chosen])
        if encoded:
            heard = {"encoded": torch.stack([encoded[at] for at in chosen])}
        else:
            seeds = self._mask_seeds(windows, chosen)
            heard = {"features": self.listen.features([windows[at].samples for at in chosen], seeds)}
        (device,) = {value.device for value in heard.values()}  # the model's
        return {**heard, "inputs": inputs.to(device), "labels": labels.to(device), "windows": list(chosen)}

    def describe(self) -> dict[str, Any]:
        """Say what the data holds."""
        seconds = sum(row.size for row in self.rows)
        return {
            "windows": len(self.rows),
            "replay_windows": len(self.replay),
            "windows_with_timestamps": sum(window.has_timestamps for window in self.windows),
            "seconds": round(seconds, 1),
            "padding": round(1 - seconds / (MOST_SECONDS * max(1, len(self.rows))), 3),
            "encoder_cached": bool(self.encoded),
            "left_out": "; ".join(self.left_out) or "nothing",
        }
