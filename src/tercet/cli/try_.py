"""`tercet try`: base and tuned side by side on an input of the user's."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.eval import AdapterPath
from tercet.cli.output import Json, Out, RecipePath, emit, note, show, table
from tercet.cli.watching import Watching


def command(
    recipe: RecipePath,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, or the content itself.")],
    out: Out = None,
    adapter: AdapterPath = None,
    as_json: Json = False,
) -> None:
    """Let base and tuned answer one input, side by side."""
    from tercet.evaluate.run import try_recipe
    from tercet.pipeline.run import default_run_dir
    from tercet.recipe import load_recipe
    from tercet.report.page import write_tried

    loaded = load_recipe(recipe)
    with Watching() as watch:
        answers = try_recipe(loaded, inputs, out, adapter=adapter, progress=watch, announce=note)
    if as_json:
        emit({"answers": answers})
        return
    rows = table("", ["input", "base", "tuned"])
    for answer in answers:
        rows.add_row(answer["input"], answer["base"], answer["tuned"])
    show(rows)
    if any("html" in answer for answer in answers):
        page = write_tried(loaded.name, answers, (out or default_run_dir(loaded)) / "try.html")
        show(f"seen side by side: {page}")
