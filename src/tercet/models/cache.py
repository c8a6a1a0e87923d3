"""The cache of models: a folder appears in it whole or not at all, and two processes never build the same one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tercet.errors import ModelError
from tercet.files import fsync_folder

CHUNK_BYTES = 1 << 20


def cache_root() -> Path:
    """Folder of the cache: $TERCET_CACHE, else `tercet` in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("TERCET_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tercet"


def models_root() -> Path:
    """Folder that holds one folder per cached model."""
    return cache_root() / "models"


def build_once(key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder cached under `key`; if there is none, let `build` fill one and publish it by a rename.

    `build` gets an empty folder. A kill, an error or a full disk leaves nothing under the final name; what a killed
    process left behind is swept by the next one. A second process waits for the first.

    Raises:
        ModelError: the cache can't be written.
    """
    final = models_root() / key
    if final.is_dir():
        return final
    with _writable(final), _locked(key):
        if final.is_dir():
            return final
        partial = models_root() / f".{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            build(partial)
            _fsync_tree(partial)
            os.replace(partial, final)
            fsync_folder(final.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def sha256_of(path: Path) -> str:
    """Hash a file's bytes, in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _writable(final: Path) -> Iterator[None]:
    """Say what to do when the disk is full or the cache can't be written."""
    try:
        models_root().mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ModelError(
            f"model cache {final}: can't be written: {error.strerror or error}; "
            "free space or name another folder: export TERCET_CACHE=/a/writable/folder"
        ) from error


@contextmanager
def _locked(key: str) -> Iterator[None]:
    descriptor = os.open(models_root() / f".{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fsync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(folder)
