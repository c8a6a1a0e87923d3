"""`tercet status`: how far a run is, from its counters alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tercet.cli.output import Json, RunPath, emit, run_directory, show, table

NUMBERS = ("planned", "made", "failed", "rejected", "accepted")
TOP_REASONS = 3


def command(run: RunPath, as_json: Json = False) -> None:
    """Say how far a run is, live or past."""
    from tercet.store.summary import read_summary

    run_dir = run_directory(run)
    summary = read_summary(run_dir)
    if as_json:
        emit({"run_dir": run_dir, **summary})
    else:
        show(f"{summary['name']}: {summary['state']}", *tables(summary))


def tables(summary: Mapping[str, Any]) -> Iterator[Any]:
    """Give the counts, what was lost and why, and what was spent, for a terminal."""
    counts = table("", ["modality", *NUMBERS, "kept"], numeric=[*NUMBERS, "kept"])
    lost = table("lost", ["modality", "stage", "reason", "records"], numeric=["records"])
    for name, of in summary["modalities"].items():
        kept = f"{of['accepted'] / of['made']:.0%}" if of["made"] else "-"
        counts.add_row(name, *[f"{of[number]:,}" for number in NUMBERS], kept)
        for gate, reason, number in of["reasons"][:TOP_REASONS]:
            lost.add_row(name, gate, reason, f"{number:,}")
        for error in of["errors"][:TOP_REASONS]:
            again = " (retryable: tercet run --retry-failed)" if error["retryable"] else ""
            lost.add_row(name, error["stage"], f"{error['error']}: {error['message']}{again}", f"{error['count']:,}")
    yield counts
    if lost.row_count:
        yield lost
    spent = {kind: value for kind, value in summary["spend"].items() if value}
    if spent:
        yield "spent: " + ", ".join(f"{value:,.10g} {kind}" for kind, value in spent.items())
