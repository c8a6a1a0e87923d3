"""The main job, step by step: make the recipe's data, train, evaluate, report; then say what each step cost.

Run by `make demo`. Times are wall clock; memory is the proportional set size of this process and all below it, sampled
every two seconds, so that pages which workers share count once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet import load_recipe
from tercet.cli.watching import Watching
from tercet.errors import TercetError
from tercet.machine import describe_machine
from tercet.pipeline.progress import Progress
from tercet.pipeline.run import default_run_dir, run_recipe

BUDGET_MINUTES = {"install and weights": 5, "generate": 3, "gate": 5, "train": 6, "evaluate": 4, "report": 1}
TOTAL_MINUTES = 25
MEMORY_GIB = 8
SAMPLE_SECONDS = 2.0  # a sample walks every mapping of every process: 0.1 s here
KIB_PER_GIB = 2**20
TERCET = Path(sys.executable).with_name("tercet")


@dataclass
class Costs:
    """Seconds per step, and the peak of memory while it ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_kib: dict[str, int] = field(default_factory=dict)
    step: str = ""

    def add(self, step: str, seconds: float) -> None:
        """Book time on a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def see(self, kib: int) -> None:
        """Take one sample of memory into account."""
        self.peak_kib[self.step] = max(self.peak_kib.get(self.step, 0), kib)

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Book a block's time on a step."""
        self.step, began = step, time.monotonic()
        yield
        self.add(step, time.monotonic() - began)


class StageClock:
    """Splits a run's time between generating and gating: what passed since the last word belongs to who speaks now."""

    def __init__(self, costs: Costs, watch: Watching) -> None:
        self.costs, self.watch = costs, watch
        self.last = time.monotonic()
        costs.step = "generate"

    def __call__(self, progress: Progress) -> None:
        """Book the time since the last step forward."""
        self.costs.step = "gate" if " gate " in progress.stage else "generate"
        self.book()
        self.watch(progress)

    def book(self) -> None:
        """Book the time since the last call on the step in hand."""
        now = time.monotonic()
        self.costs.add(self.costs.step, now - self.last)
        self.last = now


def main() -> int:
    """Run the job; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, help="run directory; default: runs/<name> beside the recipe")
    parser.add_argument("--started", type=float, default=0, help="when `make` began, seconds since 1970")
    parser.add_argument("--stamp", type=Path, action="append", default=[], help="set-up stamp that holds its seconds")
    asked = parser.parse_args()
    costs = Costs(seconds={"install and weights": set_up_seconds(asked.stamp, asked.started)})
    threading.Thread(target=sample_memory, args=(costs,), daemon=True).start()
    try:
        recipe = load_recipe(asked.recipe)
        run_dir = asked.out or default_run_dir(recipe)
        say("generate and gate")
        with Watching() as watch:
            clock = StageClock(costs, watch)
            run_recipe(recipe, run_dir, progress=clock, announce=print)
            clock.book()
    except TercetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for step, verb in (("train", "train"), ("evaluate", "eval"), ("report", "report")):
        say(step)
        target = [str(run_dir)] if verb == "report" else [str(asked.recipe), "--out", str(run_dir)]
        # make's OMP_NUM_THREADS=1 is for the workers of `run`; a model has the machine to itself
        cores = {"OMP_NUM_THREADS": str(describe_machine()["cores"])}
        with costs.measure(step):
            code = subprocess.run([TERCET, verb, *target], env=os.environ | cores, check=False).returncode
        if code:
            print(f"the step {step!r} ended with {code}; what was done is kept, and `make demo` goes on from there")
            return code
    costs.step = ""
    (run_dir / "timings.json").write_text(json.dumps(summary(costs), indent=2) + "\n")
    print(table(costs))
    print(f"report: {run_dir / 'report.html'}")
    return 0


def say(step: str) -> None:
    """Announce a step."""
    print(f"\n== {step}", flush=True)


def set_up_seconds(stamps: list[Path], started: float) -> float:
    """Sum the set-up's seconds; a stamp from before `started` cost nothing this time."""
    fresh = [stamp for stamp in stamps if stamp.stat().st_mtime >= started]
    return sum(float(stamp.read_text()) for stamp in fresh)


def sample_memory(costs: Costs) -> None:
    """Watch this process and its descendants for ever."""
    while True:
        if costs.step:
            costs.see(tree_kib(os.getpid()))
        time.sleep(SAMPLE_SECONDS)


def tree_kib(root: int) -> int:
    """Sum the proportional set sizes of a process and its descendants, KiB; a process that ended counts 0."""
    total = 0
    for line in _read(f"/proc/{root}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1])
    threads = Path(f"/proc/{root}/task")
    for thread in threads.iterdir() if threads.is_dir() else ():
        total += sum(tree_kib(int(child)) for child in _read(f"{thread}/children").split())
    return total


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # the process ended while we looked
        return ""


def summary(costs: Costs) -> dict[str, Any]:
    """Give the costs with the machine they were measured on."""
    return {
        "command": "make demo",
        "machine": describe_machine(),
        "minutes": {step: round(costs.seconds.get(step, 0.0) / 60, 2) for step in BUDGET_MINUTES},
        "total_minutes": round(sum(costs.seconds.values()) / 60, 2),
        "peak_gib": round(max(costs.peak_kib.values(), default=0) / KIB_PER_GIB, 2),
    }


def table(costs: Costs) -> str:
    """Lay the costs beside their budget."""
    lines = ["", f"{'step':<21}{'minutes':>9}{'budget':>8}{'peak GiB':>10}"]
    for step, budget in BUDGET_MINUTES.items():
        lines.append(_line(step, costs.seconds.get(step, 0.0) / 60, budget, costs.peak_kib.get(step)))
    total = sum(costs.seconds.values()) / 60
    peak = max(costs.peak_kib.values(), default=0)
    lines.append(_line("total", total, TOTAL_MINUTES, peak))
    if peak / KIB_PER_GIB > MEMORY_GIB:
        lines.append(f"memory: {peak / KIB_PER_GIB:.1f} GiB is over the {MEMORY_GIB} GiB budget")
    return "\n".join(lines)


def _line(step: str, minutes: float, budget: float, peak_kib: int | None) -> str:
    peak = f"{peak_kib / KIB_PER_GIB:.1f}" if peak_kib else "-"
    return f"{step:<21}{minutes:>9.1f}{budget:>8}{peak:>10}{'  over budget' if minutes > budget else ''}"


if __name__ == "__main__":
    sys.exit(main())
