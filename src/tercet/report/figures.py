"""The report's figures as numbers: the funnel and the coverage grid, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet import registry
from tercet.errors import UsageError
from tercet.randomness import canonical_json
from tercet.store.summary import MIN_CELL

FULL_CELL = 0.85  # neural voices keep at least this share
THIN_CELL = 0.5  # a cell that keeps less than this share of what was made is a warning
MAX_ROWS = 60  # of the grid: more than that no one reads; the worst ones are shown


@dataclass(frozen=True)
class Step:
    """One stage of the funnel: how many remain after it, and how many it took."""

    name: str
    count: int
    lost: int
    share: float  # of what was planned, 0 to 1
    lost_share: float


def funnel(modality: str, counts: Mapping[str, Any]) -> list[Step]:
    """Follow the items from the plan through every gate to the accepted records."""
    planned = counts["planned"]
    took: dict[str, int] = {}
    for gate, _, number in counts["reasons"]:
        took[gate] = took.get(gate, 0) + number
    steps = [("planned", planned, 0), ("made", counts["made"], counts["failed"])]
    left = counts["made"]
    # a run under way has judged only some: then the gates' own order still holds, and `accepted` has the last word
    for gate in _gate_order(modality, list(took)):
        left -= took.get(gate, 0)
        steps.append((gate, left, took.get(gate, 0)))
    steps.append(("accepted", counts["accepted"], 0))
    of = max(planned, 1)
    return [Step(name, count, lost, min(count / of, 1.0), min(lost / of, 1.0)) for name, count, lost in steps]


def _gate_order(modality: str, seen: Sequence[str]) -> list[str]:
    """Order gates as they run; a gate that no plug-in names (`duplicate`) comes last."""
    try:
        plug_in = registry.modality(modality)
        known = [*plug_in.gates, *plug_in.corpus_gates]
    except UsageError:
        known = []
    return [gate for gate in known if gate in seen] + sorted(gate for gate in seen if gate not in known)


@dataclass(frozen=True)
class Cell:
    """One place of the coverage grid; `state` is full, fair, thin, empty, few or absent."""

    planned: int
    made: int
    kept: int
    rate: float
    state: str


ABSENT = Cell(0, 0, 0, 0.0, "absent")


@dataclass(frozen=True)
class Grid:
    """Keep-rates by the dimensions of the plan: the last dimension stands in the columns."""

    title: str
    row_title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    num_thin: int
    num_empty: int
    num_hidden: int


def grid(cells: Sequence[Mapping[str, Any]], *, is_over: bool) -> Grid | None:
    """Arrange the counters of a run's cells as a table; None without a grid of at least one dimension.

    `is_over` says that no more is to come: only then is a planned cell with nothing in it a failure.
    """
    cells = _fold(cells)
    names = list(dict.fromkeys(name for cell in cells for name in cell["cell"]))
    if not names:
        return None
    # canonical JSON sorts the names; the dimension with the fewest values makes the narrowest, most readable table
    values = {name: {cell["cell"].get(name, "") for cell in cells} for name in names}
    across = min(reversed(names), key=lambda name: len(values[name])) if len(names) > 1 else ""
    down = [name for name in names if name != across]
    columns = tuple(sorted(values[across], key=_natural)) if across else ("all",)
    placed: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        row = " · ".join(cell["cell"].get(name, "-") for name in down)
        column = cell["cell"].get(across, "") if across else "all"
        placed.setdefault(row, {})[column] = _cell(cell, is_over=is_over)
    rows = [(row, tuple(found.get(column, ABSENT) for column in columns)) for row, found in placed.items()]
    rows.sort(key=lambda row: row[0])
    everything = [cell for _, found in rows for cell in found]
    if len(rows) > MAX_ROWS:
        rows = sorted(rows, key=lambda row: min(cell.rate for cell in row[1] if cell.planned))[:MAX_ROWS]
    return Grid(
        title=" × ".join([*down, across] if across else down),
        row_title=" · ".join(down),
        columns=columns,
        rows=tuple(rows),
        num_thin=sum(cell.state == "thin" for cell in everything),
        num_empty=sum(cell.state == "empty" for cell in everything),
        num_hidden=len(placed) - len(rows),
    )


def _fold(cells: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Sum over the finest dimension while cells hold too few items on average to say anything."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["cell"]))
    fails_run = any(cell["planned"] >= MIN_CELL and not cell["kept"] for cell in cells)  # never folded out of sight
    if len(names) < 2 or fails_run or sum(cell["planned"] for cell in cells) >= MIN_CELL * len(cells):
        return cells
    finest = max(names, key=lambda name: len({cell["cell"].get(name) for cell in cells}))
    folded: dict[str, dict[str, Any]] = {}
    for cell in cells:
        kept = {name: value for name, value in cell["cell"].items() if name != finest}
        into = folded.setdefault(canonical_json(kept), {"cell": kept, "planned": 0, "made": 0, "kept": 0})
        for number in ("planned", "made", "kept"):
            into[number] += cell[number]
    return _fold(list(folded.values()))


def _cell(cell: Mapping[str, Any], *, is_over: bool) -> Cell:
    planned, made, kept = cell["planned"], cell["made"], cell["kept"]
    rate = kept / made if made else 0.0
    return Cell(planned, made, kept, rate, _state(planned, kept, rate, is_over=is_over))


def _state(planned: int, kept: int, rate: float, *, is_over: bool) -> str:
    if not planned:
        return "absent"
    if not kept:
        return "empty" if is_over and planned >= MIN_CELL else "few"
    if rate < THIN_CELL:
        return "thin"
    return "full" if rate >= FULL_CELL else "fair"


def _natural(value: str) -> tuple[int, float, str]:
    """Sort numbers as numbers and words as words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
