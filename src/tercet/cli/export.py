"""`tercet export`: a run's records as Parquet, JSONL or webdataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, RunPath, emit, note, run_directory, show
from tercet.errors import UsageError

MODEL = "model"


def command(
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write into. [default: RUN/export]")] = None,
    to: Annotated[
        str, typer.Option("--to", help="parquet, jsonl, webdataset: the records; model: base and adapter merged.")
    ] = "parquet",
    as_json: Json = False,
) -> None:
    """Write a run's records as Parquet, JSONL or webdataset, or its tuned model as its users load it."""
    from tercet.export import export

    run_dir = run_directory(run)
    names = [name.strip() for name in to.split(",")]
    formats = [name for name in names if name != MODEL]
    written = export(run_dir, out or run_dir / "export", formats) if formats else []
    model = _model(run, out) if MODEL in names else None
    if as_json:
        emit({"run_dir": run_dir, "files": [str(path) for path in written], **({"model": model} if model else {})})
    else:
        lines = [f"{len(written)} files in {out or run_dir / 'export'}"] if formats else []
        show(*lines, *([f"model: {model}"] if model else []))


def _model(recipe: Path, out: Path | None) -> Path:
    if not recipe.is_file():
        raise UsageError(f"--to model needs the recipe, which names the base: tercet export recipe.yaml --to {MODEL}")
    from tercet.export.model import export_model
    from tercet.recipe import load_recipe

    return export_model(load_recipe(recipe), out, announce=note)
