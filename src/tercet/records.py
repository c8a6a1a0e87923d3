"""The nouns that travel through a run: an item is planned, made, judged, and becomes a record or a rejected record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tercet.randomness import digest

Columns = Mapping[str, Any]  # one payload, column by column: JSON values, and bytes for sound and pictures


@dataclass(frozen=True, slots=True)
class Item:
    """One planned record.

    `spec` says what to make, in JSON values alone. `cell` places the item in its modality's coverage grid
    (voice x accent x pace, say) and isn't part of the key. `split` is a plain word (`train`, `held_out_terms`).
    """

    modality: str
    generator: str
    split: str
    spec: Mapping[str, Any]
    index: int
    cell: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Digest of the plan entry, independent of its position: raising a quota keeps the old items."""
        return digest(self.modality, self.generator, self.split, self.spec)


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What made a payload: where it came from and on what terms its output may be used."""

    reference: str
    digest: str
    licence: str
    output_terms: str


@dataclass(frozen=True, slots=True)
class Made:
    """A generator's answer for one item: the payload's columns and what was measured while making it."""

    payload: Columns
    model: ModelUse
    parameters: Mapping[str, Any] = field(default_factory=dict)  # into the lineage: JSON values, no clock time


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage gave no answer for one item; kept with the run, redone by `run --retry-failed` when retryable."""

    stage: str
    error: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says of one payload; a gate that can't run says `passed=False` and why."""

    gate: str
    passed: bool
    score: float | None = None
    threshold: float | None = None
    reason: str = ""  # short and groupable when rejected ("silence"); the report counts them
    label: str = ""  # an optional mark that stays with the record ("robustness")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item with its payload, as a gate sees it; `slot` is its fixed place in the gate's batch."""

    item: Item
    payload: Columns
    parameters: Mapping[str, Any] = field(default_factory=dict)
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """An accepted training example, as a shard holds it.

    `lineage` holds recipe digest, item key, parents, generator, model use, seed and parameters; a media column of
    `payload` is bytes (FLAC, PNG).
    """

    id: str
    item_key: str
    modality: str
    split: str
    payload: Columns
    lineage: Mapping[str, Any]
    verdicts: tuple[Verdict, ...] = ()


def record_id(modality: str, item_key: str, fingerprint: str) -> str:
    """Name a record by its item and its decoded payload."""
    return digest(modality, item_key, fingerprint)
