"""Hand a run's tuned model to its users: the adapter merged into its base, in the layouts that they load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tercet.errors import StoreError
from tercet.evaluate.judging import find_contestants
from tercet.export.claim import check_free, claim, mark
from tercet.files import disk_error, fsync_folder
from tercet.pipeline.run import default_run_dir
from tercet.recipe import Recipe
from tercet.store.lock import RunLock
from tercet.store.manifest import read_manifest
from tercet.train.task import find_task

FOLDER = "model"


def export_model(
    recipe: Recipe,
    out: Path | None = None,
    run_dir: Path | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Path:
    """Merge the run's adapter into its base, write the model to `out/model`, and return that folder.

    A former model there is replaced as a whole. `out` is `export` in the run directory unless given.

    Raises:
        ModelError: there is no adapter, or it belongs to another base.
        UsageError: `out`, or `model` in it, holds something else than a former export of this run.
        StoreError: `out` can't be written.
    """
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    if not run_dir.is_dir():
        raise StoreError(f"{run_dir}: no finished run here; run first: tercet run {recipe.path}")
    out = out or run_dir / "export"
    target = out / FOLDER
    making = target.with_name(f".{FOLDER}.tmp")
    with RunLock(run_dir):
        contestants = find_contestants(recipe, task, run_dir, None, announce)
        made_by = read_manifest(run_dir).recipe
        try:
            claim(out, made_by, run_dir)
            check_free(target, made_by, run_dir)
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            task.export(contestants.base.path, contestants.adapter, making)
            shutil.copyfile(contestants.adapter / "README.md", making / "README.md")
            mark(making, made_by)
            shutil.rmtree(target, ignore_errors=True)
            making.rename(target)
            fsync_folder(target.parent)
        except OSError as error:
            raise disk_error(target, error) from error
    return target
