"""`tercet validate`: a recipe checked whole, with what it would make, before anything runs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, emit, show, table
from tercet.errors import UsageError


def command(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a recipe.")] = False,
    as_json: Json = False,
) -> None:
    """Check a recipe whole; say what it would make."""
    from tercet import recipe as recipes

    if schema:
        typer.echo(json.dumps(recipes.schema(), indent=1))
        return
    if recipe is None:
        raise UsageError("no recipe given; run: tercet validate RECIPE")
    from tercet.models import check_terms
    from tercet.pipeline.planned import plan_recipe
    from tercet.registry import load
    from tercet.sources import load_sources

    loaded = recipes.load_recipe(recipe)
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_recipe(loaded, load_sources(loaded), Path(folder))
    checks = [check for one in planned if one.modality.checks for check in load(one.modality.checks)(one.section)]
    notes = check_terms(loaded.sections.use, loaded.sections.accept_terms, checks)
    failed = [check for check in checks if check.required and not check.passed]
    counts = {one.name: len(one.plan) for one in planned}
    if as_json:
        lines = [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]
        emit({"recipe": loaded.name, "digest": loaded.digest, "planned": counts, "checks": lines, "notes": notes})
    else:
        rows = table("", ["modality", "planned records"], numeric=["planned records"])
        for name, count in counts.items():
            rows.add_row(name, f"{count:,}")
        show(f"{recipe}: valid", rows, *[f"{check.name}: {check.detail}" for check in checks], *notes)
    if failed:
        raise UsageError("\n".join(f"{check.name}: {check.detail}; {check.fix}" for check in failed))
