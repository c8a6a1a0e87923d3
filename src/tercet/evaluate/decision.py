"""The decision, always with the numbers that led to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tercet.evaluate.statistics import FEW_SOURCES, Comparison


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with an adapter, and why: one line per rule, each with its numbers."""

    verdict: Literal["promote", "hold", "decline"]
    reasons: tuple[str, ...]


def decide(
    primary: Comparison,
    general: Mapping[str, Comparison],
    others: Comparison | None,
    false_triggers: float,
    *,
    margin: float,
    allowed: float = 0.1,
    names: tuple[str, str, str] = ("B-WER", "U-WER", "false triggers"),
) -> Decision:
    """Decide by the rules of DESIGN section 9; lower is better for every metric, all in points.

    `primary` is the domain metric, `general` the change on each general set, `others` the words off the domain,
    `false_triggers` the tuned model's, per 100 units (words, answers), of which `allowed` may be. Promote needs every
    rule; decline needs one wholly broken, by an interval over sources enough to mean something.
    """
    rules: list[tuple[bool, bool, str]] = []  # (holds, is wholly broken, what was found)
    is_broken = primary.is_worse and not _has_few(primary)
    rules.append((primary.is_better, is_broken, f"{names[0]} {_say(primary)}: must lie wholly below 0"))
    if _has_few(primary):
        rules.append((False, False, f"{names[0]} over {primary.sources} sources: at least {FEW_SOURCES}"))
    for name, change in general.items():
        found = f"general set {name} {_say(change)}: its upper end must be at most +{margin:g}"
        rules.append((change.high <= margin, change.low > margin and not _has_few(change), found))
        if _has_few(change):
            rules.append((False, False, f"general set {name} over {change.sources} sources: at least {FEW_SOURCES}"))
    if not general:
        rules.append((False, False, "no general set was evaluated: forgetting is unknown"))
    if others is not None:
        rules.append((not others.is_worse, False, f"{names[1]} {_say(others)}: must not lie wholly above 0"))
    found = f"{names[2]} {false_triggers:.3f} per 100: at most {allowed:g}"
    rules.append((false_triggers <= allowed, False, found))
    reasons = tuple(f"{'holds' if holds else 'fails'}: {text}" for holds, _, text in rules)
    if all(holds for holds, _, _ in rules):
        return Decision("promote", reasons)
    return Decision("decline" if any(broken for _, broken, _ in rules) else "hold", reasons)


def _has_few(change: Comparison) -> bool:
    return change.sources < FEW_SOURCES


def _say(change: Comparison) -> str:
    interval = f"{change.low:+.2f} to {change.high:+.2f}"
    return f"{change.base:.2f} -> {change.tuned:.2f} (change {change.change:+.2f}, {interval})"
