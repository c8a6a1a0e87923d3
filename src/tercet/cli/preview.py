"""`tercet preview`: a few records of each modality in the terminal, nothing kept."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.output import Json, RecipePath, emit, show
from tercet.cli.watching import Watching


def command(
    recipe: RecipePath,
    count: Annotated[int, typer.Option("-n", min=1, max=100, help="Records of each modality.")] = 5,
    as_json: Json = False,
) -> None:
    """Make a few records and show them in the terminal."""
    from tercet.pipeline.preview import preview
    from tercet.recipe import load_recipe
    from tercet.registry import load, modality

    with Watching() as watch:
        previewed = preview(load_recipe(recipe), count, progress=watch)
    found = []
    for name, records in previewed.items():
        shown = load(modality(name).show)
        for record in records:
            rejected = next((verdict for verdict in record.verdicts if not verdict.passed), None)
            state = (
                "kept"
                if record.is_kept
                else f"rejected by {rejected.gate}: {rejected.reason}"
                if rejected
                else "failed"
            )
            text = shown(record.payload).text if record.payload else record.failure.message if record.failure else ""
            found.append({"modality": name, "split": record.item.split, "state": state, "text": text})
    if as_json:
        emit({"records": found})
        return
    for row in found:
        show(f"[{row['modality']} {row['split']}, {row['state']}]", row["text"], "")
