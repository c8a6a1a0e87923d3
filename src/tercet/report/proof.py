"""`evaluation.json` as the page shows it: the decision, the lift of every suite with its interval, the examples.

Its shape is what `tercet.evaluate` writes (evaluate/run.py and counting.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tercet.errors import CorruptError, StoreError
from tercet.evaluate.layout import EVALUATION_VERSION, metrics_in_order, rates_of, suites_in_order

MAX_EXAMPLES = 8
DIGEST_SHOWN = 16
Suites = list[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Row:
    """One comparison: base and tuned in points, the change with its interval; positions are percent of the plot.

    A slice of few sources claims no interval: `few` is set, and the interval is the change alone.
    """

    name: str
    base: float
    tuned: float
    change: float
    low: float
    high: float
    detectable: float
    items: int
    sources: int
    state: str  # better, worse or open: the interval lies below 0, above it, or across
    few: bool
    at_low: float = 0.0
    at_high: float = 0.0
    at_change: float = 0.0


@dataclass(frozen=True)
class Suite:
    """One evaluation set with its metrics, the one that counts first."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Rate:
    """A plain rate of both models on one suite, percent."""

    suite: str
    name: str
    base: float
    tuned: float


@dataclass(frozen=True)
class Proof:
    """All that the page says of an evaluation."""

    verdict: str
    reasons: tuple[tuple[bool, str], ...]  # whether the rule holds, and its numbers
    suites: tuple[Suite, ...]
    slices: tuple[Suite, ...]
    rates: tuple[Rate, ...]
    confidence: float
    zero: float  # where no change lies, percent of the plot
    fixed: tuple[Mapping[str, Any], ...]  # id, slices, reference, base, tuned
    broken: tuple[Mapping[str, Any], ...]
    facts: tuple[tuple[str, str], ...]  # task, base model, adapter, decoding

    @property
    def primary(self) -> Row | None:
        """The leading metric of the primary suite: what the decision is about."""
        return self.suites[0].rows[0] if self.suites and self.suites[0].rows else None


def read_proof(run_dir: Path) -> Proof | None:
    """Read a run's `evaluation.json`; None when nothing was evaluated yet.

    Raises:
        StoreError: it was written by a newer tercet.
        CorruptError: the file isn't an evaluation.
    """
    path = run_dir / "evaluation.json"
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_bytes())
        if held["version"] > EVALUATION_VERSION:
            raise StoreError(f"{path}: evaluation version {held['version']} is newer than ours; update tercet")
        return _proof(held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path}: not an evaluation ({error!r}); evaluate again: tercet eval") from error


def _proof(held: Mapping[str, Any]) -> Proof:
    suites = suites_in_order(held)
    shown = [Suite(suite["title"], tuple(_rows(metrics_in_order(suite)))) for _, suite in suites]
    drawn = [row for suite in shown for row in suite.rows]
    low = min([row.low for row in drawn], default=-1.0)
    high = max([row.high for row in drawn], default=1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low or 1.0) * 0.06
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def place(row: Row) -> Row:
        return replace(row, at_low=at(row.low), at_high=at(row.high), at_change=at(row.change))

    return Proof(
        verdict=str(held["decision"]["verdict"]),
        reasons=tuple(_rule(reason) for reason in held["decision"]["reasons"]),
        suites=tuple(Suite(suite.name, tuple(place(row) for row in suite.rows)) for suite in shown),
        slices=tuple(_slices(suites)),
        rates=tuple(
            Rate(suite["title"], name, base, tuned) for _, suite in suites for name, base, tuned in rates_of(suite)
        ),
        confidence=float(held["confidence"]),
        zero=at(0.0),
        fixed=_examples(suites, "fixed"),
        broken=_examples(suites, "broken"),
        facts=tuple(_facts(held)),
    )


def _rule(reason: str) -> tuple[bool, str]:
    word, _, rest = reason.partition(": ")
    return word == "holds", rest


def _slices(suites: Suites) -> Iterator[Suite]:
    """Give a table per suite and slice, with the suite's leading metric per value."""
    for _, suite in suites:
        for by, values in suite["slices"].items():
            leading = suite["leading"]
            rows = tuple(_rows((value, metrics[leading]) for value, metrics in values.items() if leading in metrics))
            if rows:
                yield Suite(f"{suite['title']}, {leading} by {by}", rows)


def _rows(metrics: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Row]:
    for name, held in metrics:
        low, high = (held["change"] if held[end] is None else held[end] for end in ("low", "high"))
        claims = held["low"] is not None
        yield Row(
            name,
            held["base"],
            held["tuned"],
            held["change"],
            low,
            high,
            held["detectable"] or 0.0,
            held["items"],
            held["sources"],
            "better" if claims and high < 0 else "worse" if claims and low > 0 else "open",
            held["few"],
        )


def _examples(suites: Suites, kind: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(example for _, suite in suites for example in suite["examples"][kind])[:MAX_EXAMPLES]


def _facts(held: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    base, adapter = held["base"], held["adapter"]
    yield "task", held["task"]
    yield "base", f"{base['reference']}, digest {base['digest'][:DIGEST_SHOWN]}, licence {base['licence']}"
    parts = ", ".join(f"{name} {adapter[name]}" for name in ("rank", "scale", "steps", "seed"))
    yield "adapter", f"digest {adapter['digest'][:DIGEST_SHOWN]}, {parts}"
    if held["decoding"]:
        yield "decoding", ", ".join(f"{name} {value}" for name, value in held["decoding"].items())
