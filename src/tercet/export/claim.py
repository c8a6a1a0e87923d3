"""Whose an export's folder is: a mark in it names the run it came from, and nothing without that mark is replaced."""

from __future__ import annotations

import json
from pathlib import Path

from tercet.errors import StoreError, UsageError
from tercet.files import write_atomically

MARK = "tercet-export.json"
VERSION = 1


def claim(folder: Path, recipe_digest: str, run_dir: Path) -> None:
    """Make sure that `folder` is there, and empty or an export of this very run, and mark it.

    Raises:
        UsageError: it holds something else.
        StoreError: its mark can't be read.
    """
    check_free(folder, recipe_digest, run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).is_file():
        mark(folder, recipe_digest)


def check_free(folder: Path, recipe_digest: str, run_dir: Path) -> None:
    """Refuse a folder that holds anything but a former export of this very run; raises as `claim` does."""
    marked = folder / MARK
    if not marked.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"{folder}: not empty, and no former export of {run_dir}; empty it or export to another folder"
            )
        return
    try:
        former = json.loads(marked.read_bytes())["recipe"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{marked}: can't be read ({error}); remove {folder} or export to another folder") from error
    if former != recipe_digest:
        raise UsageError(
            f"{folder}: holds an export of another run (recipe {former}, this is {recipe_digest}); "
            "remove it or export to another folder"
        )


def mark(folder: Path, recipe_digest: str) -> None:
    """Say in `folder` which run it was exported from."""
    held = {"version": VERSION, "recipe": recipe_digest}
    write_atomically(folder / MARK, (json.dumps(held) + "\n").encode())
