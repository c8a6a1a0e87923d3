"""`evaluation.json` as the page shows it: the decision, the lift of every suite with its interval, the examples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import CorruptError

MAX_EXAMPLES = 8


@dataclass(frozen=True)
class Row:
    """One comparison: base and tuned in points, the change with its interval; positions are percent of the plot."""

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
    at_low: float = 0.0
    at_high: float = 0.0
    at_change: float = 0.0


@dataclass(frozen=True)
class Suite:
    """One evaluation set with its metrics."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Proof:
    """All that the page says of an evaluation."""

    verdict: str
    reasons: tuple[tuple[bool, str], ...]  # whether the rule holds, and its numbers
    suites: tuple[Suite, ...]
    slices: tuple[Suite, ...]
    confidence: float
    zero: float  # where no change lies, percent of the plot
    fixed: tuple[Mapping[str, Any], ...]
    broken: tuple[Mapping[str, Any], ...]
    facts: tuple[tuple[str, str], ...]  # base model, adapter, decoding

    @property
    def primary(self) -> Row | None:
        """The first comparison of the first suite: what the decision is about."""
        return self.suites[0].rows[0] if self.suites and self.suites[0].rows else None


def read_proof(run_dir: Path) -> Proof | None:
    """Read a run's `evaluation.json`; None when nothing was evaluated yet.

    Raises:
        CorruptError: the file isn't an evaluation.
    """
    path = run_dir / "evaluation.json"
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_bytes())
        return _proof(held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path}: not an evaluation ({error}); evaluate again: tercet eval") from error


def _proof(held: Mapping[str, Any]) -> Proof:
    suites = [(name, _rows(suite["metrics"])) for name, suite in held["suites"].items()]
    slices = [
        (f"{name}: by {by}", _rows(of)) for name, suite in held["suites"].items() for by, of in _slices(suite).items()
    ]
    drawn = [row for _, rows in suites for row in rows]
    low = min([row.low for row in drawn], default=-1.0)
    high = max([row.high for row in drawn], default=1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low or 1.0) * 0.06
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def place(row: Row) -> Row:
        values = {**row.__dict__, "at_low": at(row.low), "at_high": at(row.high), "at_change": at(row.change)}
        return Row(**values)

    fixed, broken = _examples(held)
    return Proof(
        verdict=str(held["decision"]["verdict"]),
        reasons=tuple(_rule(reason) for reason in held["decision"]["reasons"]),
        suites=tuple(Suite(name, tuple(place(row) for row in rows)) for name, rows in suites),
        slices=tuple(Suite(name, tuple(rows)) for name, rows in slices if rows),
        confidence=float(held.get("confidence", 0.95)),
        zero=at(0.0),
        fixed=fixed,
        broken=broken,
        facts=tuple((name, _fact(held[name])) for name in ("base", "adapter", "task", "decoding") if held.get(name)),
    )


def _rule(reason: str) -> tuple[bool, str]:
    word, _, rest = reason.partition(": ")
    return (word == "holds", rest) if word in {"holds", "fails"} else (True, reason)


def _slices(suite: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give {dimension: {value: comparison}}; a slice may hold one comparison or several metrics."""
    found: dict[str, dict[str, Any]] = {}
    for by, values in (suite.get("slices") or {}).items():
        for value, held in values.items():
            metrics = {"": held} if _is_comparison(held) else held
            for metric, comparison in metrics.items():
                found.setdefault(by, {})[f"{value} {metric}".strip()] = comparison
    return found


def _is_comparison(held: Any) -> bool:
    return isinstance(held, Mapping) and "change" in held and "low" in held


def _rows(metrics: Mapping[str, Any]) -> list[Row]:
    rows = []
    for name, held in metrics.items():
        if not _is_comparison(held):
            continue
        low, high = held["low"], held["high"]
        numbers = [held["base"], held["tuned"], held["change"], low, high]
        if any(number is None or not math.isfinite(number) for number in numbers):
            continue
        state = "better" if high < 0 else "worse" if low > 0 else "open"
        base, tuned, change = held["base"], held["tuned"], held["change"]
        detectable, items = held.get("detectable") or 0.0, int(held.get("items", 0))
        rows.append(Row(name, base, tuned, change, low, high, detectable, items, int(held.get("sources", 0)), state))
    return rows


def _examples(held: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]:
    fixed: list[Mapping[str, Any]] = []
    broken: list[Mapping[str, Any]] = []
    for where in (held, *held["suites"].values()):
        examples = where.get("examples") or {}
        fixed += examples.get("fixed", [])
        broken += examples.get("broken", [])
    return tuple(fixed[:MAX_EXAMPLES]), tuple(broken[:MAX_EXAMPLES])


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items() if part not in (None, "", {}))
    return str(value)
