"""`tercet export`: a run's records as Parquet, JSONL or webdataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, RunPath, emit, run_directory, show


def command(
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write into. [default: RUN/export]")] = None,
    to: Annotated[str, typer.Option("--to", help="parquet, jsonl and webdataset, with commas between.")] = "parquet",
    as_json: Json = False,
) -> None:
    """Write a run's records as Parquet, JSONL or webdataset."""
    from tercet.export import export

    run_dir = run_directory(run)
    written = export(run_dir, out or run_dir / "export", [name.strip() for name in to.split(",")])
    if as_json:
        emit({"run_dir": run_dir, "files": [str(path) for path in written]})
    else:
        show(f"{len(written)} files in {out or run_dir / 'export'}")
