"""Which records are trained on, and how often: real and synthetic by share, more often what a gate judged best."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from tercet.errors import NothingSurvived, UsageError
from tercet.randomness import digest
from tercet.recipe import EarlyStop, SampleWeights, Train
from tercet.records import Record

REAL = "examples"  # the generator of the user's own records, in every modality


def training_records(
    records: Iterable[Record], train: Train, seed: int, source: Callable[[Record], str] = lambda _: ""
) -> list[Record]:
    """Keep the records that are trained on: within `data_fraction`, and not of a source that early stopping watches.

    A larger fraction holds all of a smaller one. `source` names what a record shares with others like it: a sentence,
    a scenario.

    Raises:
        NothingSurvived: there are records, but fraction and watching leave none.
    """
    held = list(records)
    kept = [
        record
        for record in held
        if share_of("data", seed, record.item_key) < train.data_fraction
        and not is_watched(source(record), train.early_stop, seed)
    ]
    if held and not kept:
        watched = f" and train.early_stop.share {train.early_stop.share:g}" if train.early_stop else ""
        raise NothingSurvived(
            f"train.data_fraction {train.data_fraction:g}{watched} leave none of {len(held)} records to train on; "
            "change them, or make more records"
        )
    return kept


def is_watched(source: str, early_stop: EarlyStop | None, seed: int) -> bool:
    """Say whether records of this source are kept out of training to be watched."""
    return early_stop is not None and share_of("validation", seed, source) < early_stop.share


def share_of(purpose: str, seed: int, key: str) -> float:
    """Place a key in [0, 1), the same for the same seed and purpose."""
    return int(digest(str(seed), purpose, key)[:8], 16) / 2**32


def record_weights(records: Sequence[Record], train: Train) -> list[float]:
    """Give each record's expected number of uses in a pass; the mean is 1, and without wishes all are 1.

    Raises:
        UsageError: the recipe asks for a share of real records, or weights by a gate, that these records can't give.
    """
    weights = [1.0] * len(records)
    if train.weights is not None:
        weights = _by_gate(records, train.weights)
    if train.real_fraction is not None:
        weights = _in_shares(records, weights, train.real_fraction)
    mean = sum(weights) / max(1, len(weights))
    return [weight / mean for weight in weights]


def draw_pass(weights: Sequence[float], seed: str) -> list[int]:
    """Draw one pass: as many numbers as there are weights, each as often as its weight says, shuffled.

    Systematic resampling: a weight of 2.3 comes twice or three times, never less or more.
    """
    draw = random.Random(seed)
    chosen: list[int] = []
    offset, total = draw.random(), 0.0
    for number, weight in enumerate(weights):
        total += weight
        while len(chosen) < len(weights) and len(chosen) + offset < total:
            chosen.append(number)
    draw.shuffle(chosen)
    return chosen


def is_real(record: Record) -> bool:
    """Say whether a record came from the user's own examples."""
    return record.lineage.get("generator") == REAL


def _by_gate(records: Sequence[Record], wish: SampleWeights) -> list[float]:
    """Weigh by the distance to the threshold: an accepted record lies on the good side of it, whichever that is."""
    distances: list[float | None] = []
    for record in records:
        found = [verdict for verdict in record.verdicts if verdict.gate == wish.gate and verdict.score is not None]
        if not found or found[0].threshold is None:
            distances.append(None)  # this gate didn't judge it: it counts in full
            continue
        distances.append(abs((found[0].score or 0.0) - found[0].threshold))
    farthest = max((one for one in distances if one is not None), default=None)
    if farthest is None:
        judged = sorted(
            {verdict.gate for record in records for verdict in record.verdicts if verdict.score is not None}
        )
        raise UsageError(
            f"train.weights.gate: {wish.gate!r} gave no training record a score; gates that did: "
            f"{', '.join(judged) or 'none'}"
        )
    spread = farthest or 1.0
    return [1.0 if one is None else wish.least + (1 - wish.least) * one / spread for one in distances]


def _in_shares(records: Sequence[Record], weights: Sequence[float], fraction: float) -> list[float]:
    real = sum(weight for record, weight in zip(records, weights, strict=True) if is_real(record))
    made = sum(weights) - real
    if not real or not made:
        lacking = "real" if not real else "synthetic"
        raise UsageError(
            f"train.real_fraction: {fraction:g}, but there is no {lacking} record to train on; leave it out"
        )
    return [
        weight * (fraction / real if is_real(record) else (1 - fraction) / made)
        for record, weight in zip(records, weights, strict=True)
    ]
