"""From answers to numbers: what each suite shows of base and tuned, in the shape of `evaluation.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tercet.evaluate.statistics import FEW_SOURCES, Comparison, Counts, compare
from tercet.train.task import Example, Measured, Shows, Suite, Task, rate

MOST_EXAMPLES = 20  # of each kind, per suite
CLAIMS = ("low", "high", "relative_low", "relative_high", "detectable")
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Heard:
    """One example with both answers and their counts."""

    example: Example
    base: str
    tuned: str
    base_counts: Measured
    tuned_counts: Measured


@dataclass(frozen=True)
class Judge:
    """How counts are compared."""

    resamples: int
    confidence: float

    def compare(self, heard: Sequence[Heard], metric: str) -> Comparison | None:
        """Compare base and tuned on one metric; None where no item has units of it."""
        having = [one for one in heard if metric in one.base_counts.counts]
        base = [Counts(one.example.source, *one.base_counts.counts[metric]) for one in having]
        tuned = [Counts(one.example.source, *one.tuned_counts.counts[metric]) for one in having]
        if not having:
            return None
        return compare(base, tuned, resamples=self.resamples, confidence=self.confidence)


def hear(task: Task, example: Example, base: str, tuned: str) -> Heard:
    """Count both answers to an example."""
    return Heard(example, base, tuned, task.measure(example, base), task.measure(example, tuned))


def suite_numbers(task: Task, suite: Suite, heard: Sequence[Heard], judge: Judge) -> dict[str, Any]:
    """Give all that `evaluation.json` says of one suite."""
    plain = {*task.rates, task.false_trigger_metric} - {""}
    names = list(dict.fromkeys(name for one in heard for name in one.base_counts.counts))
    metrics = [name for name in names if name not in plain]
    leading = task.general_metric if suite.role == "general" else task.primary_metric
    return {
        "role": suite.role,
        "title": suite.title,
        "items": len(heard),
        "leading": leading,
        "metrics": dict(_compared(heard, metrics, judge)),
        "slices": _slices(heard, metrics, judge),
        "rates": {
            "base": _rates([one.base_counts for one in heard], plain),
            "tuned": _rates([one.tuned_counts for one in heard], plain),
        },
        "examples": _examples(task, heard, leading),
    }


def _compared(heard: Sequence[Heard], metrics: Sequence[str], judge: Judge) -> Iterator[tuple[str, Numbers]]:
    for metric in metrics:
        found = judge.compare(heard, metric)
        if found is not None:
            yield metric, {**_plain(asdict(found)), "few": found.sources < FEW_SOURCES}


def _slices(heard: Sequence[Heard], metrics: Sequence[str], judge: Judge) -> dict[str, dict[str, dict[str, Numbers]]]:
    """Compare per value of each slice; one with few sources claims no interval."""
    groups: dict[str, dict[str, list[Heard]]] = {}
    for one in heard:
        for by, value in one.example.slices.items():
            groups.setdefault(by, {}).setdefault(value, []).append(one)
    found: dict[str, dict[str, dict[str, Numbers]]] = {}
    for by, values in groups.items():
        for value, members in values.items():
            compared = dict(_compared(members, metrics, judge))
            found.setdefault(by, {})[value] = {
                metric: {**numbers, **dict.fromkeys(CLAIMS)} if numbers["few"] else numbers
                for metric, numbers in compared.items()
            }
    return found


def _rates(measured: Sequence[Measured], names: set[str]) -> dict[str, float]:
    found = {name: rate(measured, name) for name in sorted(names)}
    return {name: value for name, value in found.items() if value is not None}


def _examples(task: Task, heard: Sequence[Heard], metric: str) -> dict[str, list[Numbers]]:
    """Show what the adapter fixed and what it broke, the largest differences first, one per source."""

    def change(one: Heard) -> float:
        if metric not in one.base_counts.counts:
            return 0.0
        return one.tuned_counts.counts[metric][0] - one.base_counts.counts[metric][0]

    def pick(sign: int) -> list[Numbers]:
        changed = sorted((one for one in heard if sign * change(one) > 0), key=lambda one: -abs(change(one)))
        first: dict[str, Heard] = {}
        for one in changed:
            first.setdefault(one.example.source, one)
        return [_shown(task, one) for one in list(first.values())[:MOST_EXAMPLES]]

    return {"fixed": pick(-1), "broken": pick(1)}


def _shown(task: Task, one: Heard) -> Numbers:
    example = one.example
    about = {"id": example.id, "slices": dict(example.slices)}
    if not isinstance(task, Shows):
        return {**about, "reference": example.reference, "base": one.base, "tuned": one.tuned}
    shown = {
        "reference": task.show_example(example),
        "base": task.show_answer(one.base),
        "tuned": task.show_answer(one.tuned),
    }
    texts = {name: found.text for name, found in shown.items()}
    return {**about, **texts, "html": {name: found.html for name, found in shown.items()}}


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Turn NaN and infinity, which JSON can't hold, into null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }
