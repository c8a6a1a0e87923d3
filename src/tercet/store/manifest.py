"""What a finished run consists of: `manifest.json` lists every shard and artefact with its digest.

It holds no clock time, so that the same recipe gives the same manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tercet.errors import CorruptError, StoreError
from tercet.files import write_atomically
from tercet.store.durable import file_digest, read_error
from tercet.store.shards import ShardInfo

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a run: its path inside the run directory, digest and size; `rows` for a shard alone."""

    path: str
    digest: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's files in the order of their paths."""

    recipe: str  # digest
    shards: tuple[Entry, ...]
    artefacts: tuple[Entry, ...] = ()
    version: int = MANIFEST_VERSION


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that isn't what the manifest says; `found` is empty when it is missing."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        state = f"has digest {self.found}" if self.found else "is missing"
        return f"{self.path}: {state}; the manifest says {self.expected}"


def write_manifest(
    run_dir: Path, recipe_digest: str, shards: Iterable[ShardInfo], artefacts: Iterable[str] = ()
) -> Manifest:
    """Write `manifest.json` atomically and return it.

    `artefacts` are paths inside the run directory (`report.html`); their digests are taken now.

    Raises:
        StoreError: an artefact is missing, or the directory can't be written.
    """
    manifest = Manifest(
        recipe_digest,
        tuple(sorted((Entry(s.path, s.digest, s.bytes, s.rows) for s in shards), key=lambda entry: entry.path)),
        tuple(_entry(run_dir, path) for path in sorted(artefacts)),
    )
    text = json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(run_dir / MANIFEST_NAME, text.encode())
    return manifest


def read_manifest(run_dir: Path) -> Manifest:
    """Read a run's manifest.

    Raises:
        StoreError: there is none, or it comes from a newer tercet.
        CorruptError: it isn't a manifest.
    """
    path = run_dir / MANIFEST_NAME
    try:
        held = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{run_dir}: no {MANIFEST_NAME} here; finish the run first: tercet run") from error
    except OSError as error:
        raise read_error(path, error) from error
    except ValueError as error:
        raise CorruptError(f"{path}: not JSON: {error}; {_ADVICE}") from error
    try:
        if held["version"] > MANIFEST_VERSION:
            raise StoreError(f"{path}: manifest version {held['version']} is newer than ours; update tercet")
        return Manifest(
            str(held["recipe"]),
            tuple(Entry(**entry) for entry in held["shards"]),
            tuple(Entry(**entry) for entry in held["artefacts"]),
            held["version"],
        )
    except (KeyError, TypeError) as error:
        raise CorruptError(f"{path}: not a manifest ({error}); {_ADVICE}") from error


def verify(run_dir: Path) -> list[Damage]:
    """Compare every file of a run with its manifest; an empty list means that all are whole."""
    manifest = read_manifest(run_dir)
    damages: list[Damage] = []
    for entry in (*manifest.shards, *manifest.artefacts):
        path = run_dir / entry.path
        found = file_digest(path) if path.is_file() else ""
        if found != entry.digest:
            damages.append(Damage(entry.path, entry.digest, found))
    return damages


_ADVICE = "finish the run again to write it anew: tercet run"


def _entry(run_dir: Path, path: str) -> Entry:
    digest = file_digest(run_dir / path)
    return Entry(path, digest, (run_dir / path).stat().st_size)
