"""How an evaluation is read, wherever it is shown: what decides stands first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EVALUATION_VERSION = 1
ROLES = ("primary", "other", "general")


def suites_in_order(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """List (name, suite) of `evaluation.json`, the primary one first and the general ones last."""
    return sorted(evaluation["suites"].items(), key=lambda one: (ROLES.index(one[1]["role"]), one[0]))


def metrics_in_order(suite: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """List (name, comparison) of a suite, the metric that it is there for first."""
    leading = suite["leading"]
    return sorted(suite["metrics"].items(), key=lambda one: (one[0] != leading, one[0]))


def say_confidence(confidence: float) -> str:
    """Write a confidence with all its digits: 99.5%, not 100%."""
    return f"{100 * confidence:g}%"


def rates_of(suite: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield (name, base, tuned) of a suite's plain rates."""
    for name, base in suite["rates"]["base"].items():
        yield name, base, suite["rates"]["tuned"][name]
