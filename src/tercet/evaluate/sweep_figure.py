"""A sweep as a picture: the change of the primary and of the general metric, a dot per seed, a line per interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, NAMES, GAP, ROW, TOP = 900, 200, 50, 26, 56
Change = tuple[float, float, float]  # change, low, high


def figure(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the variants as SVG, one line each, with one panel for each of two roles."""
    height = TOP + ROW * len(variants) + 30
    panel = (WIDTH - NAMES - 2 * GAP) / 2
    parts = [
        f'<text x="{NAMES - 10}" y="{_y(row) + 4}" text-anchor="end">{escape(name)}</text>'
        for row, name in enumerate(variants)
    ]
    for number, (role, title) in enumerate((("primary", "primary suite"), ("general", "general suites"))):
        left = NAMES + number * (panel + GAP)
        changes = [list(_changes(seeds, role)) for seeds in variants.values()]
        parts += _panel(left, panel, height, title, changes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="sweep"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(left: float, width: float, height: float, title: str, rows: Sequence[Sequence[Change]]) -> Iterator[str]:
    ends = [value for changes in rows for change in changes for value in change[1:]]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    low, high = (low, high) if high > low else (-1.0, 1.0)

    def x(value: float) -> float:
        return left + width * (value - low) / (high - low)

    yield f'<text x="{left:.1f}" y="20" font-weight="bold">{title}: change in points</text>'
    bottom = height - 26
    yield f'<path d="M{x(0):.1f} {TOP - 18}V{bottom}" stroke="#555" stroke-dasharray="3 3"/>'
    for value in sorted({low, 0.0, high}):
        yield f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{value:+.1f}</text>'
    for row, changes in enumerate(rows):
        for at, (change, first, last) in enumerate(changes):
            y = _y(row) + (at - (len(changes) - 1) / 2) * 6
            yield f'<path d="M{x(first):.1f} {y:.1f}H{x(last):.1f}" stroke="#1d4f91" opacity="0.45"/>'
            yield f'<circle cx="{x(change):.1f}" cy="{y:.1f}" r="3.2" fill="#1d4f91"/>'


def _y(row: int) -> float:
    return TOP + ROW * row


def _changes(seeds: Mapping[str, Any], role: str) -> Iterator[Change]:
    for evaluation in seeds.values():
        for suite in evaluation["suites"].values():
            found = suite["metrics"].get(suite["leading"])
            if suite["role"] == role and found is not None:
                yield found["change"], found["low"], found["high"]
