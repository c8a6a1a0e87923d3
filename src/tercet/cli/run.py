"""`tercet run`: make a recipe's data, or go on with it."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.output import Json, Out, RecipePath, emit, note, show
from tercet.cli.watching import Watching


def command(
    recipe: RecipePath,
    out: Out = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; 0 uses this one. [default: cores]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the run's data and start over.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make what failed again, and only that, beside what is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a recipe's data; goes on by itself where it was stopped."""
    from tercet.cli.status import tables
    from tercet.pipeline.run import run_recipe
    from tercet.recipe import load_recipe

    loaded = load_recipe(recipe)
    with Watching() as watch:
        result = run_recipe(
            loaded, out, workers=workers, fresh=fresh, retry_failed=retry_failed, progress=watch, announce=note
        )
    if as_json:
        emit(
            {
                "run_dir": result.run_dir,
                "resumed": result.resumed,
                **result.summary,
            }
        )
        return
    show(*tables(result.summary), f"data: {result.run_dir}")
