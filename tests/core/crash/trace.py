"""Read strace's account of a run: every call that changes a file, in order, with its thread and its bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DRIVER = Path(__file__).parent / "driver.py"
CALLS = "openat,close,write,pwrite64,fsync,fdatasync,rename,mkdir,unlink,unlinkat,ftruncate"
LINE = re.compile(r"(\d+) +(.*)")
RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Call:
    """One system call that succeeded: paths and data as bytes in `texts`, numbers in `numbers`."""

    thread: int
    name: str
    texts: tuple[bytes, ...]
    numbers: tuple[int, ...]
    flags: str
    result: int


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a run under test: nothing on disk changes but the run."""
    return dict(os.environ, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", **more)


def driver(recipe: Path, out: Path) -> list[str]:
    """Give the command of a run under test; -P keeps this folder's modules from hiding Python's own."""
    return [sys.executable, "-P", str(DRIVER), str(recipe), str(out)]


def trace_run(strace: str, recipe: Path, out: Path, **more: str) -> list[Call]:
    """Run the driver under strace and return what it did."""
    log = out.with_suffix(".strace")
    command = [strace, "-f", "-qq", "-xx", "-s", str(2**26), "-e", f"trace={CALLS}", "-o", str(log)]
    subprocess.run([*command, *driver(recipe, out)], check=True, env=environment(**more))
    return list(parse(log.read_text()))


def parse(log: str) -> Iterator[Call]:
    """Yield the calls that succeeded; one that another thread interrupted counts from its end."""
    begun: dict[int, str] = {}
    for line in log.splitlines():
        found = LINE.match(line)
        assert found, line
        thread, text = int(found[1]), found[2]
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := RESUMED.match(text):
            text = begun.pop(thread) + resumed[2]
        call = CALL.match(text)
        if call and call[3] != "?" and int(call[3]) >= 0:
            texts = tuple(bytes.fromhex(one.replace("\\x", "")) for one in STRING.findall(call[2]))
            plain = STRING.sub("", call[2])
            numbers = tuple(int(one) for one in re.findall(r"(?:^|, )(\d+)(?=,|$)", plain))
            yield Call(thread, call[1], texts, numbers, plain, int(call[3]))
