from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tercet.errors import LockedError, StoreError
from tercet.store.lock import RunLock

HOLDER = """
import sys, time
from pathlib import Path
from tercet.store.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(run_dir: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, run_dir], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_told_who_holds_the_run_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        with pytest.raises(LockedError, match=f"process {holder.pid} on {socket.gethostname()} is writing this run"):
            RunLock(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunLock(tmp_path):
        pass


def test_the_same_process_is_refused_a_second_lock_until_the_first_ends(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        pass


def test_a_holder_that_has_not_written_its_name_is_another_process(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / "run.lock").write_text("")
        with pytest.raises(LockedError, match="another process is writing this run; wait"):
            RunLock(tmp_path).__enter__()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=["no permission", "read-only file system"])
def test_a_read_only_directory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=f"run.lock: can't be written: {os.strerror(code)}; free space"):
        RunLock(tmp_path).__enter__()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError, match="can't be locked: No locks available; put the run directory on a local disk"):
        RunLock(tmp_path).__enter__()
