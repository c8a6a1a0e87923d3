"""The run under test, as a program: `driver.py RECIPE OUT` makes everything in this one process, for strace to see.

strace counts `when=N` for each thread apart, so the journal's thread must be traced by itself. With CRASH_GATE naming a
folder it writes its thread id to `tid` there and waits until `go` exists, which is the time to attach.
"""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.store.blobs import FolderBlobs
from tercet.store.durable import bytes_digest
from tercet.store.journal import Journal

PR_SET_PTRACER, ANYBODY = 0x59616D61, -1


def hold_journal(gate: Path) -> None:
    """Make the journal's thread wait for its tracer before its first call."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(ANYBODY), 0, 0, 0)  # the tracer is no ancestor of ours
    write_groups = Journal._write_groups

    def wait_then_write(journal: Journal) -> None:
        (gate / "tid.new").write_text(str(threading.get_native_id()))
        (gate / "tid.new").rename(gate / "tid")
        while not (gate / "go").exists():
            time.sleep(0.002)
        write_groups(journal)

    Journal._write_groups = wait_then_write  # type: ignore[method-assign, assignment]


def put_beside_another_process(folder: Path) -> None:
    """Put a blob that another process made a moment ago: its file is durable, the two folders above it are not yet."""
    data = b"made by two"
    path = folder / bytes_digest(data)[:2] / bytes_digest(data)
    folder.mkdir()
    fsync(folder.parent)
    path.parent.mkdir()
    path.write_bytes(data)
    fsync(path)
    FolderBlobs(folder).put(data)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    if "CRASH_GATE" in os.environ:
        hold_journal(Path(os.environ["CRASH_GATE"]))
    out = Path(sys.argv[2])
    run_recipe(load_recipe(sys.argv[1]), out, workers=0)
    if "CRASH_BLOB" in os.environ:
        put_beside_another_process(Path(os.environ["CRASH_BLOB"]))
