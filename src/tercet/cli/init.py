"""`tercet init`: a recipe that runs as it stands, with small sources of our own writing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, emit, show
from tercet.errors import UsageError
from tercet.files import write_atomically

RECIPE = """\
# Dialogs and pictures about your own terms. Change terms.txt and documents/, then: tercet run recipe.yaml
version: 1
name: first
seed: 7
sources:
  terms: terms.txt
  documents: documents
modalities:
  text:
    dialogs: 60
  image:
    pictures: 40
"""
TERMS = "Harbour Blend\nNorthern Roast\nVelvet Decaf\nOrchard Tea\nMidnight Cocoa\n"
DOCUMENT = """\
Harbour Blend is roasted on Mondays and shipped on Tuesdays.
Northern Roast is our darkest coffee; we recommend it for espresso.
Velvet Decaf is decaffeinated with water and keeps for six months unopened.
Orchard Tea contains apple and cinnamon and no caffeine.
Midnight Cocoa should be stored dry and below twenty degrees.
"""


def command(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it isn't there.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a recipe that runs as it stands, and small sources for it."""
    files = {"recipe.yaml": RECIPE, "terms.txt": TERMS, "documents/products.md": DOCUMENT}
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder / there[0]}: is there already; choose another folder: tercet init FOLDER")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text.encode())
    if as_json:
        emit({"files": [str(folder / name) for name in files]})
    else:
        show(
            f"written: {', '.join(str(folder / name) for name in files)}", f"next: tercet run {folder / 'recipe.yaml'}"
        )
