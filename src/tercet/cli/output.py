"""What every verb prints: one JSON object with `--json`, else lines for a reader; notes and errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tercet.recipe import Recipe

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or the recipe it came from.")]
General = Annotated[
    Path | None,
    typer.Option("--general", help="A folder of general examples, instead of the recipe's evaluate.general."),
]
Out = Annotated[Path | None, typer.Option("--out", help="The run directory. [default: runs/<name> beside the recipe]")]


def with_general(recipe: Recipe, general: Path | None) -> Recipe:
    """Give the recipe with the folder that `--general` names; its path starts where the command runs."""
    if general is None:
        return recipe
    return recipe.replaced(evaluate={**(recipe.data.get("evaluate") or {}), "general": str(general.resolve())})


def emit(data: Mapping[str, Any]) -> None:
    """Print the command's one JSON object."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=1, default=str))


def note(text: str) -> None:
    """Tell a reader something beside the result."""
    typer.echo(text, err=True)


def emit_error(message: str, code: int, *, as_json: bool) -> int:
    """Say what went wrong, on stderr (and with `--json` as the one object on stdout); return `code`."""
    typer.echo(f"tercet: {message}", err=True)
    if as_json:
        emit({"error": message, "exit_code": code})
    return code


def table(title: str, columns: Sequence[str], *, numeric: Sequence[str] = ()) -> Table:
    """Start a table; the columns named in `numeric` stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    return made


def show(*parts: Any) -> None:
    """Print tables and lines; colours only on a terminal that wants them (NO_COLOR is respected)."""
    from rich.console import Console

    # without a terminal there is no width to respect: a log keeps each row on one line
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for part in parts:
        console.print(part, markup=False)


def run_directory(path: Path) -> Path:
    """Return the run directory that `path` names: itself, or the default one of a recipe."""
    if not path.is_file():
        return path
    from tercet.pipeline.run import default_run_dir
    from tercet.recipe import load_recipe

    return default_run_dir(load_recipe(path))
