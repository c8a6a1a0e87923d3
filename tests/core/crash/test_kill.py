"""Kill the run at each write, fsync and rename; the resumed run must end as if nothing had happened.

strace's `when=N` counts for each thread apart, and the run has two that touch the disk: the main one and the journal's.
Each is traced alone, so that every call of both is a crash point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.core.crash.conftest import RECIPE, STRIDE, Undisturbed, resume, state_of
from tests.core.crash.trace import driver, environment

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename")
POINTS = [*(("main", call) for call in CALLS), ("journal", "pwrite64"), ("journal", "fdatasync")]
SLACK = 0.5  # group commit and the number of pages it writes depend on the clock: a late point may not be reached


def inject(strace: str, call: str, number: int) -> list[str]:
    fault = f"inject={call}:signal=KILL:when={number}"
    return [strace, "-e", f"trace={call}", "-e", fault, "-o", os.devnull]


def kill_main(strace: str, call: str, number: int, run_dir: Path) -> bool:
    """Run until the main thread's call `number`; say whether it came so far."""
    command = [*inject(strace, call, number), "-qq", *driver(RECIPE, run_dir)]
    done = subprocess.run(command, env=environment(), check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def kill_journal(strace: str, call: str, number: int, run_dir: Path) -> bool:
    """Run until the journal thread's call `number`; say whether it came so far."""
    gate = run_dir.with_suffix(".gate")
    gate.mkdir()
    with subprocess.Popen(driver(RECIPE, run_dir), env=environment(CRASH_GATE=str(gate))) as run:
        wait_for(gate / "tid", run)
        tracer = [*inject(strace, call, number), "-p", (gate / "tid").read_text()]
        with subprocess.Popen(tracer, stderr=subprocess.PIPE, text=True) as attached:
            assert attached.stderr is not None
            assert "attached" in attached.stderr.readline()
            (gate / "go").touch()
            run.wait()
            attached.communicate()
    assert run.returncode in (0, -signal.SIGKILL)
    return run.returncode != 0


def wait_for(path: Path, run: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert run.poll() is None, "the run ended before its journal began"
        time.sleep(0.002)


def test_the_crash_points_below_are_all_there_are(undisturbed: Undisturbed) -> None:
    made = {(one.thread, one.name) for one in undisturbed.calls if one.name in CALLS}
    main = undisturbed.calls[0].thread
    assert len({thread for thread, _ in made}) == 2
    assert {("main" if thread == main else "journal", call) for thread, call in made} == set(POINTS)


@pytest.mark.parametrize(("thread", "call"), POINTS)
def test_a_run_killed_at_any_call_resumes_to_the_same_records(
    strace: str, undisturbed: Undisturbed, tmp_path: Path, thread: str, call: str
) -> None:
    main = undisturbed.calls[0].thread
    last = sum(one.name == call and (one.thread == main) == (thread == "main") for one in undisturbed.calls)
    kill = kill_main if thread == "main" else kill_journal
    for number in range(1, last + 1, STRIDE):
        run_dir = tmp_path / f"{call}-{number}"
        killed = kill(strace, call, number, run_dir)
        assert killed or number > last * SLACK, f"{thread} {call} {number} of {last} was never reached"
        assert resume(run_dir) == undisturbed.state, f"killed at {thread} {call} {number} of {last}"


def test_resuming_a_finished_run_changes_nothing(undisturbed: Undisturbed) -> None:
    before = (undisturbed.run_dir / "manifest.json").read_bytes()
    assert resume(undisturbed.run_dir) == state_of(undisturbed.run_dir) == undisturbed.state
    assert (undisturbed.run_dir / "manifest.json").read_bytes() == before
