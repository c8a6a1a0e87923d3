"""The few file operations that everything else relies on: joins that can't escape, and writes that can't tear."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tercet.errors import StoreError, UsageError


def safe_join(root: Path, relative: str) -> Path:
    """Join `relative` to `root`; the result stays inside `root`, symbolic links followed.

    Raises:
        UsageError: `relative` is absolute or leads outside `root`.
    """
    joined = (root / relative).resolve()
    if Path(relative).is_absolute() or not joined.is_relative_to(root.resolve()):
        raise UsageError(f"path {relative!r} leads outside {root}; use a path inside that folder")
    return joined


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that a reader, or a crash, sees the old file or the new one and nothing between.

    Raises:
        StoreError: the disk is full or the folder can't be written; nothing was changed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where that is impossible: another file system, or one without hard links.

    Raises:
        OSError: it can't be copied either.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(path: Path, error: OSError) -> StoreError:
    """Turn the operating system's word into one that says what to do."""
    reason = error.strerror or str(error)
    return StoreError(f"{path}: can't be written: {reason}; free space or fix the permissions, then run again")
