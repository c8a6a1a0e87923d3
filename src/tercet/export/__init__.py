"""Hand a finished run's records to other tools: Parquet for `datasets`, JSONL with files beside it, webdataset tars.

Each format has its own folder in `out` and is replaced as a whole, so a crash leaves the former export or the new one.
The files are not fsynced: an export can be made again at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tercet.callable_module import make_callable
from tercet.errors import UsageError
from tercet.export.claim import claim
from tercet.export.formats import WRITERS, Part
from tercet.files import disk_error
from tercet.store.manifest import read_manifest
from tercet.store.shards import check_digest

FORMATS = tuple(WRITERS)
make_callable(__name__, "tercet.export:export")


def export(run_dir: Path, out: Path, formats: Sequence[str], splits: Sequence[str] | None = None) -> list[Path]:
    """Write a run's records to `out/<format>/` and return the data files, media files aside.

    `splits` limits the export to some splits. A former export of the same run is replaced, format by format.

    Raises:
        UsageError: an unknown format or split, or `out` holds something else.
        StoreError: the run isn't finished, or `out` can't be written.
        CorruptError: a shard differs from the manifest; named by its digest.
    """
    for name in formats:
        if name not in WRITERS:
            raise UsageError(f"no export format {name!r}; choose from {', '.join(FORMATS)}")
    manifest = read_manifest(run_dir)
    parts = _parts(run_dir, [(entry.path, entry.digest) for entry in manifest.shards], splits)
    for part in parts:
        for path, digest in part.shards:
            check_digest(path, digest)
    try:
        claim(out, manifest.recipe, run_dir)
        return [path for name in dict.fromkeys(formats) for path in _replace(out, name, parts, run_dir)]
    except OSError as error:
        raise disk_error(out, error) from error


def _parts(run_dir: Path, shards: list[tuple[str, str]], splits: Sequence[str] | None) -> list[Part]:
    """Group accepted shards by modality and split; rejected records are never exported."""
    grouped: dict[tuple[str, str], list[tuple[Path, str]]] = {}
    for path, digest in shards:
        kind, *names, _ = path.split("/")
        if kind == "shards":
            grouped.setdefault((names[0], names[1]), []).append((run_dir / path, digest))
    known = sorted({split for _, split in grouped})
    for split in splits or ():
        if split not in known:
            raise UsageError(f"{run_dir}: no split {split!r} in this run; it has {', '.join(known) or 'none'}")
    return [
        Part(modality, split, tuple(sorted(paths, key=lambda entry: entry[0].stem)))
        for (modality, split), paths in sorted(grouped.items())
        if not splits or split in splits
    ]


def _replace(out: Path, name: str, parts: list[Part], run_dir: Path) -> list[Path]:
    """Write one format aside, then put it in the place of the former one."""
    aside, final = out / f".{name}.{os.getpid()}.tmp", out / name
    for leftover in out.glob(f".{name}.*.tmp"):
        shutil.rmtree(leftover)
    try:
        aside.mkdir()
        written = WRITERS[name](parts, aside, run_dir)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [final / path.relative_to(aside) for path in written]
