"""What a run did, from its counters alone: quick for a run of any size, live or past, and without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tercet.store.journal import read_only

MIN_CELL = 4  # a cell with fewer planned items may come out empty by chance; from here on that fails the run
Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return name, recipe digest, state, spending, and per modality what was planned, made, rejected and kept.

    Raises:
        StoreError: there is no journal, or it can't be read.
    """
    with read_only(run_dir / "journal.sqlite") as query:
        meta = dict(query("SELECT key, value FROM meta", ()))
        planned = {key.removeprefix("planned:"): int(meta[key]) for key in sorted(meta) if key.startswith("planned:")}
        spend = dict(query("SELECT name, value FROM counters WHERE modality = ''", ()))
        return {
            "name": meta.get("name", ""),
            "recipe_digest": meta.get("recipe_digest", ""),
            "state": meta.get("state", "new"),
            "modalities": {name: _modality(query, name, count) for name, count in planned.items()},
            "spend": {kind: spend.get(kind, 0.0) for kind in ("requests", "tokens", "money")},
        }


def _modality(query: Query, name: str, planned: int) -> dict[str, Any]:
    rows = query("SELECT name, value FROM counters WHERE modality = ? AND value != 0", (name,))
    counters: dict[str, float] = dict(rows)
    cells: dict[str, dict[str, Any]] = {}
    reasons: list[list[Any]] = []
    splits: dict[str, int] = {}
    labels: dict[str, int] = {}
    for key, value in counters.items():
        kind, _, rest = key.partition(":")
        if kind == "cell":
            cell, _, what = rest.rpartition(":")
            cells.setdefault(cell, {"cell": json.loads(cell), "planned": 0, "made": 0, "kept": 0})[what] = int(value)
        elif kind == "reason":
            gate, _, reason = rest.partition(":")
            reasons.append([gate, reason, int(value)])
        elif kind == "accepted" and rest:
            splits[rest] = int(value)
        elif kind == "label":
            labels[rest] = int(value)
    errors = query(
        "SELECT stage, error, retryable, MIN(message), COUNT(*) FROM errors WHERE modality = ? GROUP BY 1, 2, 3",
        (name,),
    )
    return {
        "planned": planned,
        **{what: int(counters.get(what, 0)) for what in ("made", "failed", "rejected", "accepted", "bytes")},
        "splits": dict(sorted(splits.items())),
        "reasons": sorted(reasons, key=lambda reason: (-reason[2], reason)),
        "labels": dict(sorted(labels.items())),
        "cells": [cell for _, cell in sorted(cells.items()) if cell["cell"]],
        "errors": [
            {"stage": row[0], "error": row[1], "retryable": bool(row[2]), "message": row[3], "count": row[4]}
            for row in errors
        ],
    }


def top_reasons(summary: dict[str, Any]) -> list[tuple[str, int]]:
    """List why records were lost over all modalities, the most frequent first."""
    found: list[tuple[str, int]] = []
    for name, counts in summary["modalities"].items():
        found += [(f"{name}: {gate}: {reason}", count) for gate, reason, count in counts["reasons"]]
        found += [(f"{name}: {error['error']}: {error['message']}", error["count"]) for error in counts["errors"]]
    return sorted(found, key=lambda reason: (-reason[1], reason[0]))


def empty_cells(summary: dict[str, Any]) -> list[str]:
    """List planned coverage cells (of at least MIN_CELL items) in which nothing was kept."""
    return [
        f"{name} {' '.join(f'{key}={value}' for key, value in cell['cell'].items())} ({cell['planned']} planned)"
        for name, counts in summary["modalities"].items()
        for cell in counts["cells"]
        if cell["planned"] >= MIN_CELL and not cell["kept"]
    ]
