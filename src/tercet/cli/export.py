"""`tercet export`: a run's records as Parquet, JSONL or webdataset, or its tuned model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tercet.cli.output import Json, RunPath, emit, note, show
from tercet.errors import UsageError

if TYPE_CHECKING:
    from tercet.recipe import Recipe

MODEL = "model"


def command(
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write into. [default: RUN/export]")] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="parquet, jsonl, webdataset: the records; model: base and adapter merged. "
            "[default: the recipe's export.formats]",
        ),
    ] = "",
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="Where a recipe's run is. [default: runs/<name> beside the recipe]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's records as Parquet, JSONL or webdataset, or its tuned model as its users load it."""
    from tercet.export import export
    from tercet.pipeline.run import default_run_dir
    from tercet.recipe import Export, load_recipe

    recipe = load_recipe(run) if run.is_file() else None
    if run_dir is not None and recipe is None:
        raise UsageError(f"--run names the run of a recipe, and {run} is none: tercet export recipe.yaml --run DIR")
    run_dir = run_dir or (default_run_dir(recipe) if recipe else run)
    settings: Export = recipe.sections.export if recipe else Export()
    names = [name.strip() for name in to.split(",")] if to else list(settings.formats)
    formats = [name for name in names if name != MODEL]
    written = export(run_dir, out or run_dir / "export", formats) if formats else []
    model = _model(recipe, out, run_dir) if MODEL in names else None
    if as_json:
        emit({"run_dir": run_dir, "files": [str(path) for path in written], **({"model": model} if model else {})})
    else:
        lines = [f"{len(written)} files in {out or run_dir / 'export'}"] if formats else []
        show(*lines, *([f"model: {model}"] if model else []))


def _model(recipe: Recipe | None, out: Path | None, run_dir: Path) -> Path:
    if recipe is None:
        raise UsageError(f"--to model needs the recipe, which names the base: tercet export recipe.yaml --to {MODEL}")
    from tercet.export.model import export_model

    return export_model(recipe, out, run_dir, announce=note)
