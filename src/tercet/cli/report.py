"""`tercet report`: the single-file page and the dataset card of a run."""

from __future__ import annotations

from tercet.cli.output import Json, RunPath, emit, run_directory, show


def command(run: RunPath, as_json: Json = False) -> None:
    """Write a run's report: one HTML file that needs no network."""
    from tercet.report import write_card, write_report

    run_dir = run_directory(run)
    page = write_report(run_dir)
    card = write_card(run_dir)
    if as_json:
        emit({"run_dir": run_dir, "report": page, "card": card, "bytes": page.stat().st_size})
    else:
        show(f"report: {page} ({page.stat().st_size / 2**20:.1f} MiB)", f"dataset card: {card}")
