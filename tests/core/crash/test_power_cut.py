"""Pull the plug: what was not fsynced is gone. A traced run is replayed on a disk that forgets, cut at each call."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from tests.core.crash.conftest import RECIPE, STRIDE, Undisturbed, resume
from tests.core.crash.disk import Disk
from tests.core.crash.trace import Call, trace_run

import tercet
from tercet.store.durable import bytes_digest

ORDER = ["write", "fsync file", "rename", "fsync folder", "fdatasync journal"]
PACKAGE = Path(tercet.__file__).parent


@pytest.mark.parametrize("names_survive", [False, True], ids=["bytes and names wait", "bytes wait"])
def test_a_power_cut_at_any_call_loses_nothing_that_was_committed(
    undisturbed: Undisturbed, tmp_path: Path, *, names_survive: bool
) -> None:
    disk = Disk(undisturbed.run_dir)
    changes = 0
    for call in undisturbed.calls:
        if disk.apply(call):
            changes += 1
            if changes % STRIDE == 0:
                survived = tmp_path / str(changes)
                disk.write_survivors(survived, names_survive=names_survive)
                assert resume(survived) == undisturbed.state, f"power cut after change {changes}, a {call.name}"
                shutil.rmtree(survived)
    assert changes > 100


def names_of(disk: Disk, calls: list[Call]) -> Iterator[tuple[Call, str, PurePosixPath]]:
    """Replay; yield each call with what it is in the order of durability, and the path it is about."""
    main = calls[0].thread
    for call in calls:
        path = disk.path_of(call.numbers[0]) if call.name in ("write", "fsync", "fdatasync", "pwrite64") else None
        node = disk.open[call.numbers[0]][1] if path else None
        disk.apply(call)
        if call.name == "rename":
            yield call, "rename", PurePosixPath(call.texts[1].decode())
        elif call.name == "fsync" and path is not None and type(node).__name__ == "Folder":
            yield call, "fsync folder", path
        elif call.name == "mkdir":
            yield call, "mkdir", PurePosixPath(call.texts[0].decode())
        elif path is not None and path.name == "journal.sqlite-wal":
            if call.name == "fdatasync" and call.thread != main:  # the main thread checkpoints when all is over
                yield call, "fdatasync journal", path
        elif path is not None:
            yield call, {"write": "write", "fsync": "fsync file"}.get(call.name, call.name), path


def faults_in_order(run_dir: Path, calls: list[Call]) -> list[str]:
    """Name every file that was renamed, and every folder that was made, without the fsyncs that keep it."""
    steps = [(call, kind, path) for call, kind, path in names_of(Disk(run_dir), calls) if path.is_relative_to(run_dir)]
    faults: list[str] = []
    for at, (call, kind, path) in enumerate(steps):
        if kind == "rename":
            temporary = PurePosixPath(call.texts[0].decode())
            before = [one[1] for one in steps[:at] if one[2] == temporary]
            if before[-2:] != ["write", "fsync file"]:
                faults.append(f"{path}: renamed after {before}")
        if kind in ("rename", "mkdir"):
            after = [one for one in steps[at + 1 :] if one[0].thread == call.thread]
            if not after or after[0][1:] != ("fsync folder", path.parent):
                faults.append(f"{path}: {kind} not followed by an fsync of its folder")
    return faults


def order_of(shard: PurePosixPath, run_dir: Path, calls: list[Call]) -> list[str]:
    """Give the steps by which one shard became durable, from its first byte to the journal's commit."""
    steps = list(names_of(Disk(run_dir), calls))
    renamed = next(at for at, (_, kind, path) in enumerate(steps) if kind == "rename" and path == shard)
    temporary = PurePosixPath(steps[renamed][0].texts[0].decode())
    mine = [kind for _, kind, path in steps[:renamed] if path == temporary]
    later = [kind for _, kind, path in steps[renamed:] if path in (shard, shard.parent) or "journal" in kind]
    return [*dict.fromkeys(mine), *later[:3]]


def shards_out_of_order(run_dir: Path, calls: list[Call]) -> list[str]:
    shards = [PurePosixPath(path) for path in sorted(run_dir.glob("shards/*/*/*.parquet"))]
    orders = {shard: order_of(shard, run_dir, calls) for shard in shards}
    assert len(orders) >= 2
    return [f"{shard}: {order}" for shard, order in orders.items() if order != ORDER]


def test_each_shard_is_written_fsynced_renamed_fsynced_and_then_journalled(undisturbed: Undisturbed) -> None:
    assert shards_out_of_order(undisturbed.run_dir, undisturbed.calls) == []


def test_every_rename_and_new_folder_of_a_run_is_made_durable(undisturbed: Undisturbed) -> None:
    assert faults_in_order(undisturbed.run_dir, undisturbed.calls) == []


# -- the tests above must go red when any fsync is taken out ---------------------------------------------------------


def fsyncs() -> list[tuple[str, int, str]]:
    """List every call that fsyncs in the store: file, line and text; and for the journal the weaker PRAGMAs."""
    found = [("store/journal.py", 0, mode) for mode in ("NORMAL", "OFF")]
    for path in (*sorted((PACKAGE / "store").glob("*.py")), PACKAGE / "files.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                text = ast.get_source_segment(source, node) or ""
                if re.match(r"(os\.fsync|fsync_folder|_fsync)\(", text):
                    found.append((path.relative_to(PACKAGE).as_posix(), node.lineno, text))
    return found


def without(tmp_path: Path, file: str, line: int, text: str) -> Path:
    """Copy the package without one fsync; return the folder to import it from."""
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "tercet", ignore=shutil.ignore_patterns("__pycache__"))
    target = copy / "tercet" / file
    lines = target.read_text().split("\n")
    if line:
        assert text in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(text, "pass")
        source = "\n".join(lines)
    else:
        source = "\n".join(lines).replace("PRAGMA synchronous=FULL", f"PRAGMA synchronous={text}")
    assert source != target.read_text()
    target.write_text(source)
    return copy


def durability_faults(strace: str, run_dir: Path, **more: str) -> list[str]:
    """Trace a run and a blob made by two processes; name all that a power cut would take."""
    calls = trace_run(strace, RECIPE, run_dir, CRASH_BLOB=str(run_dir / "two"), **more)
    digest = bytes_digest(b"made by two")
    disk = Disk(run_dir)
    ours = [call for call in calls if not any(str(run_dir / "two").encode() in text for text in call.texts)]
    faults = faults_in_order(run_dir, ours)
    for call in calls:
        disk.apply(call)
    if not disk.is_durable(run_dir / "two" / digest[:2] / digest):
        faults.append("a blob made by two processes isn't durable")
    return faults + shards_out_of_order(run_dir, calls)


def test_the_run_as_it_is_has_no_durability_fault(strace: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert durability_faults(strace, tmp_path / "run") == []


@pytest.mark.parametrize(("file", "line", "text"), fsyncs(), ids=str)
def test_taking_out_any_fsync_is_noticed(strace: str, tmp_path: Path, file: str, line: int, text: str) -> None:
    copy = without(tmp_path, file, line, text)
    search_path = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    try:
        faults = durability_faults(strace, run_dir, PYTHONPATH=search_path)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the copy without {text} did not run at all: {error}")
    assert faults
