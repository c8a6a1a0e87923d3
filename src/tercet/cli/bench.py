"""`tercet bench`: measurements that anybody can repeat, by name."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tercet.cli.output import Json, emit, note, show
from tercet.cli.watching import Watching
from tercet.errors import UsageError


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="demo: the whole loop, over several seeds.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many, from the recipe's own on.")] = 3,
    recipe: Annotated[Path, typer.Option("--recipe", help="The recipe.")] = Path("recipes/pharmacy.yaml"),
    out: Annotated[Path | None, typer.Option("--out", help="[default: runs/<name>-seeds beside the recipe]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make every seed again, from its data on.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the whole loop over several seeds; goes on by itself where it was stopped."""
    if name not in BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    BENCHMARKS[name](seeds, recipe, out, fresh, as_json)


def demo(seeds: int, recipe: Path, out: Path | None, fresh: bool, as_json: bool) -> None:
    """Run, train and evaluate under each seed, and lay the results side by side."""
    from tercet.evaluate.seeds import run_seeds, table
    from tercet.recipe import load_recipe

    loaded = load_recipe(recipe)
    folder = out or loaded.root / "runs" / f"{loaded.name}-seeds"
    command = shlex.join(["tercet", "bench", "demo", "--seeds", str(seeds), "--recipe", str(recipe)])
    with Watching() as watch:
        result = run_seeds(loaded, seeds, folder, fresh=fresh, command=command, progress=watch, announce=note)
    if as_json:
        emit(result)
    else:
        show(table(result), "", f"written: {folder / 'seeds.json'}, {folder / 'seeds.md'}")


BENCHMARKS: dict[str, Callable[[int, Path, Path | None, bool, bool], Any]] = {"demo": demo}
