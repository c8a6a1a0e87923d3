"""Bytes named by their digest: payloads wait here between the worker that made them and the shard that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tercet.errors import CorruptError
from tercet.files import disk_error, fsync_folder
from tercet.store.durable import bytes_digest, durable_file, make_folder, read_error


class BlobStore(Protocol):
    """Where workers put payload bytes; a local folder now, an object store later."""

    def put(self, data: bytes) -> str:
        """Keep `data` durably unless it is there already; return its digest."""

    def get(self, digest: str) -> bytes:
        """Return the bytes named `digest`, checked against it."""

    def has(self, digest: str) -> bool:
        """Say whether a blob of that name exists, without checking its bytes."""

    def delete(self, digest: str) -> None:
        """Forget a blob; one that isn't there is no error."""


class FolderBlobs:
    """Blobs in a local folder, as `<root>/<first two digits>/<digest>`; safe with many writers.

    The folder fsync follows every put, also of a blob that exists: another process may have renamed it a moment ago
    and not yet fsynced, and a caller may rely on the digest from now on.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable_folders: set[Path] = set()

    def put(self, data: bytes) -> str:
        """Keep `data` durably unless it is there already; return its digest. A damaged blob is mended.

        Raises:
            StoreError: the disk is full or the folder can't be written; nothing was left behind.
        """
        digest = bytes_digest(data)
        path = self._path(digest)
        self._ensure_folder(path.parent)
        if _holds(path, data):
            _fsync(path.parent)
        else:
            with durable_file(path) as file:
                file.write(data)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes named `digest`.

        Raises:
            CorruptError: the blob is missing, or its bytes have another digest.
            StoreError: it can't be read.
        """
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptError(f"blob {digest} is missing ({path}); {_ADVICE}") from error
        except OSError as error:
            raise read_error(path, error) from error
        found = bytes_digest(data)
        if found != digest:
            raise CorruptError(f"blob {digest} is damaged: {path} holds bytes of digest {found}; {_ADVICE}")
        return data

    def has(self, digest: str) -> bool:
        """Say whether a blob of that name exists, without checking its bytes."""
        return self._path(digest).is_file()

    def delete(self, digest: str) -> None:
        """Forget a blob; one that isn't there is no error.

        Raises:
            StoreError: the folder can't be written.
        """
        path = self._path(digest)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _ensure_folder(self, folder: Path) -> None:
        """Create a folder; its entry in the root is fsynced once by each process, whoever created it."""
        if folder in self._durable_folders:
            return
        make_folder(folder)
        _fsync(self.root)
        self._durable_folders.add(folder)


_ADVICE = "restore it from a copy, or start again with: tercet run --fresh"


def _fsync(folder: Path) -> None:
    try:
        fsync_folder(folder)
    except OSError as error:
        raise disk_error(folder, error) from error


def _holds(path: Path, data: bytes) -> bool:
    """Say whether a blob is there with the right bytes."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False  # absent or unreadable: it is written anew, and that says what is wrong
