"""Files that survive a power cut: written aside, fsynced, renamed, and the folder fsynced after them.

The order is the whole point. A rename may reach the disk before the bytes it names, so the file comes first; and a
rename is only a change of the folder, so the folder comes after.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tercet.errors import StoreError
from tercet.files import disk_error, fsync_folder
from tercet.randomness import DIGEST_HEX


def bytes_digest(data: bytes) -> str:
    """Name raw bytes: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_HEX]


def file_digest(path: Path) -> str:
    """Name a file by its bytes, without holding them in memory.

    Raises:
        StoreError: the file is missing or can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_HEX]
    except OSError as error:
        raise read_error(path, error) from error


def read_error(path: Path, error: OSError) -> StoreError:
    """Turn the operating system's word about a file that can't be read into one that says what to do."""
    reason = error.strerror or str(error)
    return StoreError(f"{path}: can't be read: {reason}; restore it from a copy, or start again: tercet run --fresh")


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents so that they survive a power cut.

    Raises:
        StoreError: the folder can't be created.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)
    except OSError as error:
        raise disk_error(folder, error) from error


@contextlib.contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; it appears under `path`, whole and durable, when the block ends without an error.

    Raises:
        StoreError: the disk is full or the folder can't be written; `path` is unchanged and nothing is left behind.
    """
    # two threads, and two processes, may write the same path at once: each has its own temporary file
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never created; a full disk must not hide its own message
            temporary.unlink()


def remove_leftovers(run_dir: Path) -> int:
    """Delete the temporary files of a killed run; only for the holder of its lock. Blobs go when the run ends.

    Raises:
        StoreError: the directory can't be written.
    """
    below = (path for name in ("shards", "rejects") for path in (run_dir / name).rglob(".*.tmp"))
    leftovers = [path for path in (*run_dir.glob(".*.tmp"), *below) if path.is_file()]
    for path in leftovers:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error
    return len(leftovers)
