"""What a training depends on, written down when it starts: a resumed one has the same, or says what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet.errors import CorruptError, StoreError
from tercet.files import write_atomically
from tercet.machine import has_gpu
from tercet.models import ResolvedModel
from tercet.pipeline.run import differences
from tercet.randomness import canonical_json, digest
from tercet.recipe import Recipe
from tercet.store.manifest import MANIFEST_NAME, read_manifest, verify
from tercet.store.shards import shard_paths
from tercet.train.task import Task

PIN = "pin.json"
# the adapter's bytes as trained don't depend on these
UNPINNED = {"task", "base", "checkpoint_every", "keep_every", "lora_scale", "tracker"}


def resolved_settings(recipe: Recipe, task: Task) -> dict[str, Any]:
    """Give the recipe's `train` values with the task's defaults where it leaves them open."""
    settings: dict[str, Any] = recipe.sections.train.model_dump(mode="json")
    for name in ("learning_rate", "replay", "lora_scale"):
        if settings[name] is None:
            settings[name] = getattr(task.defaults, name)
    if settings["precision"] == "auto":
        settings["precision"] = "bf16" if has_gpu() else "fp32"
    adapter = settings["adapter"]
    adapter["alpha"] = adapter["alpha"] or 2.0 * adapter["rank"]
    adapter["targets"] = adapter["targets"] or task.defaults.targets
    return settings


def make_pin(settings: Mapping[str, Any], task: Task, base: ResolvedModel, records: str, seed: int) -> dict[str, Any]:
    """List all that decides the adapter's bytes."""
    pin = {
        "task": settings["task"],
        "base": {"reference": base.reference, "digest": base.digest},
        "records": records,
        "seed": seed,
        "train": {name: value for name, value in settings.items() if name not in UNPINNED},
        "settings": task.settings,
    }
    result: dict[str, Any] = json.loads(canonical_json(pin))  # as it is read back: lists for tuples
    return result


def read_pin(folder: Path) -> dict[str, Any]:
    """Read the pin in a training folder; empty when nothing was trained there.

    Raises:
        CorruptError: it isn't JSON.
    """
    try:
        pin = json.loads((folder / PIN).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CorruptError(f"{folder / PIN}: not JSON: {error}; train again with: tercet train --fresh") from error
    if not isinstance(pin, dict):
        raise CorruptError(f"{folder / PIN}: not a training's pin; train again with: tercet train --fresh")
    return pin


def check_pin(folder: Path, pin: Mapping[str, Any]) -> None:
    """Refuse to go on with a training that began from something else.

    Raises:
        StoreError: names what changed.
    """
    changed = list(differences(read_pin(folder), pin))
    if changed:
        shown = "\n  ".join(changed[:10])
        raise StoreError(
            f"{folder}: holds a training from other settings or data; what changed:\n  {shown}\n"
            "set it back, or train anew with --fresh (this removes the former adapter and its checkpoint)"
        )


def write_pin(folder: Path, pin: Mapping[str, Any]) -> None:
    """Write down what the training in `folder` depends on."""
    write_atomically(folder / PIN, json.dumps(pin, indent=1, sort_keys=True, ensure_ascii=False).encode())


def records_digest(recipe: Recipe, run_dir: Path) -> str:
    """Name the run's committed records by the digests of their shards, which are checked against their bytes.

    Raises:
        StoreError: nothing was committed, or the run is another recipe's.
        CorruptError: a shard is damaged, missing or a stranger.
    """
    first = f"run first: tercet run {recipe.path}"
    if not (run_dir / MANIFEST_NAME).is_file():
        raise StoreError(f"{run_dir}: no finished run here; {first}")
    manifest = read_manifest(run_dir)
    if manifest.recipe != recipe.digest:
        raise StoreError(f"{run_dir}: the records were made by another version of this recipe; {first}")
    if not manifest.shards:
        raise StoreError(f"{run_dir}: the run kept no records; {first} --fresh")
    shards = {entry.path for entry in manifest.shards}
    for damage in verify(run_dir):
        if damage.path in shards:
            raise CorruptError(
                f"{run_dir}: {damage}; restore it from a copy, or make the data again: tercet run --fresh"
            )
    for name, split in {(Path(path).parts[1], Path(path).parts[2]) for path in shards}:
        for path in shard_paths(run_dir, name, split):  # what a reader of this split gets
            if path.relative_to(run_dir).as_posix() not in shards:
                raise CorruptError(f"{path}: a shard that the run's manifest doesn't name; move it elsewhere")
    return digest(*(part for entry in manifest.shards for part in (entry.path, entry.digest)))
