"""`tercet bench`: measurements that anybody can repeat, by name."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tercet.cli.output import General, Json, emit, note, show, with_general
from tercet.cli.watching import Watching
from tercet.errors import MissingExtra, UsageError


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="demo: the whole loop, over several seeds; kernels: tercet_kernels.")
    ],
    rest: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENTS]", help="What kernels takes; -- --help lists it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from the recipe's own on.")] = 3,
    recipe: Annotated[Path, typer.Option("--recipe", help="The recipe.")] = Path("recipes/pharmacy.yaml"),
    out: Annotated[Path | None, typer.Option("--out", help="[default: runs/<name>-seeds beside the recipe]")] = None,
    general: General = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make every seed again, from its data on.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the whole loop over several seeds, which goes on by itself where it was stopped; or the kernels."""
    if name not in BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    if rest and name != "kernels":
        raise UsageError(f"bench {name} takes no {rest[0]!r}; leave it out")
    BENCHMARKS[name](Asked(seeds, recipe, out, general, fresh, tuple(rest or ())), as_json)


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a benchmark."""

    seeds: int
    recipe: Path
    out: Path | None
    general: Path | None
    fresh: bool
    rest: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """Spell the command, as the table names it."""
        general = ["--general", str(self.general)] if self.general else []
        parts = ["tercet", "bench", "demo", "--seeds", str(self.seeds), "--recipe", str(self.recipe), *general]
        return shlex.join(parts)


def demo(asked: Asked, as_json: bool) -> None:
    """Run, train and evaluate under each seed, and lay the results side by side."""
    from tercet.evaluate.seeds import run_seeds, table
    from tercet.recipe import load_recipe

    loaded = with_general(load_recipe(asked.recipe), asked.general)
    folder = asked.out or loaded.root / "runs" / f"{loaded.name}-seeds"
    with Watching() as watch:
        result = run_seeds(
            loaded, asked.seeds, folder, fresh=asked.fresh, command=asked.command, progress=watch, announce=note
        )
    if as_json:
        emit(result)
    else:
        show(table(result), "", f"written: {folder / 'seeds.json'}, {folder / 'seeds.md'}")


def kernels(asked: Asked, as_json: bool) -> None:
    """Run the kernels' own benchmark in a process of its own, and end with its exit code: docs/kernels-bench.md."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("bench kernels needs torch; run: pip install 'tercet[kernels]'")
    out = ["--out", str(asked.out)] if asked.out else []
    command = [sys.executable, "-m", "tercet_kernels.bench", *out, *asked.rest]
    done = subprocess.run(command, stdout=sys.stderr if as_json else None, check=False)
    if as_json:
        emit({"command": shlex.join(command[1:]), "exit_code": done.returncode})
    raise typer.Exit(done.returncode)


BENCHMARKS: dict[str, Callable[[Asked, bool], Any]] = {"demo": demo, "kernels": kernels}
