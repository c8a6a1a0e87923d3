"""One run, one writer: an flock that the kernel drops with its holder, so that a killed run never stays locked."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from tercet.errors import LockedError, StoreError
from tercet.files import disk_error

LOCK_NAME = "run.lock"


class RunLock:
    """Hold a run directory for writing: `with RunLock(run_dir): ...`.

    The pid and host in the file are only for the message; the lock is the kernel's, on the open file.

    Raises:
        LockedError: another process holds it; names its pid and host.
        StoreError: the directory can't be written, or its file system has no locks.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOCK_NAME
        self._descriptor = -1

    def __enter__(self) -> RunLock:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(self.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        except BlockingIOError as error:
            os.close(descriptor)
            raise LockedError(self._say_holder()) from error
        except OSError as error:
            os.close(descriptor)
            raise self._say_unusable(error) from error
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go; the file stays, because deleting it would let two processes lock two files of one name."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _say_holder(self) -> str:
        try:
            holder = json.loads(self.path.read_text())
            who = f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"  # it has locked the file and not yet written its name
        return f"{self.path.parent}: {who} is writing this run; wait for it, stop it, or use another run directory"

    def _say_unusable(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(f"{self.path}: can't be locked: {reason}; put the run directory on a local disk with space")
