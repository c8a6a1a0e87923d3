"""`tercet train`: train a recipe's adapter on its run, or go on with it."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.output import Json, Out, RecipePath, emit, note, show
from tercet.cli.watching import Watching


def command(
    recipe: RecipePath,
    out: Out = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the former adapter and its checkpoint first.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of training. [default: the recipe's]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch. [default: OMP_NUM_THREADS, or cores]")] = None,
    as_json: Json = False,
) -> None:
    """Train the recipe's adapter on its run; goes on by itself where it was stopped."""
    from tercet.recipe import load_recipe
    from tercet.train.processes import is_main
    from tercet.train.run import train_recipe

    loaded = load_recipe(recipe)
    with Watching() as watch:
        result = train_recipe(loaded, out, fresh=fresh, seed=seed, threads=threads, progress=watch, announce=note)
    if not is_main():
        return
    if as_json:
        emit({"adapter": result.adapter, "steps": result.steps, "digest": result.digest, "resumed": result.resumed})
    else:
        show(f"adapter: {result.adapter} ({result.steps} steps, {result.digest[:16]})", f"next: tercet eval {recipe}")
