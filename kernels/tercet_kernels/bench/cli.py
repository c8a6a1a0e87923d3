"""The command line: what to run, how long, where to write; exit codes.

0: done. 1: a result was wrong, or the device was lost. 2: the command line is. 3: clearly worse than the run it was
compared with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tercet_kernels.bench import compare, efficiency, plots, registry, timing
from tercet_kernels.bench.machine import describe_machine, read_clocks
from tercet_kernels.bench.report import CSV_NAME, JSON_NAME, Report
from tercet_kernels.bench.runner import DeviceLost, Run
from tercet_kernels.bench.self_test import self_test

WRONG, USAGE, WORSE, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks as the command line says; return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        return _run(asked, list(sys.argv[1:] if arguments is None else arguments))
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return USAGE
    except KeyboardInterrupt:
        say(f"interrupted; what was measured so far is in {asked.out}")
        return INTERRUPTED


def _run(asked: argparse.Namespace, arguments: list[str]) -> int:
    if asked.compare and len(asked.compare) == 2:
        return report_comparison(read_run(asked.compare[0]), read_run(asked.compare[1]), asked.margin)
    device = _device(asked.device)
    cases = registry.chosen(registry.all_cases(device, efficiency=asked.efficiency), asked.only)
    if asked.list:
        for case in cases:
            say(f"{case.name}: {', '.join(provider.name for provider in case.providers)}")
        return 0
    old = read_run(asked.compare[0]) if asked.compare else None
    clock = timing.Clock.of_minutes(asked.minutes)
    torch.manual_seed(asked.seed)
    rate = timing.copy_rate(device)
    command = shlex.join(["python", "-m", "tercet_kernels.bench", *arguments])
    report = Report(Path(asked.out), head_of(device, asked.seed, command, rate))
    say(f"{report.head['device']}; {len(cases)} cases, {asked.minutes:g} minutes; a copy moves {rate / 1e9:.1f} GB/s")
    run = Run(device, asked.seed, clock, report, rate, say)
    code = _measure(run, cases)
    report.head["clocks_after"] = read_clocks(device)
    report.head["efficiency"] = efficiency.measured(report.rows)
    report.head["seconds"] = round(clock.seconds - clock.left, 1)
    report.write_json()
    report.write_markdown()
    for line in [*plots.write_plots(report.folder, report.rows), summary(report)]:
        say(line)
    if old is None:
        return code
    compared = report_comparison(old, read_run(report.folder / JSON_NAME), asked.margin)
    return code or compared


def _measure(run: Run, cases: Sequence[Any]) -> int:
    """Test, then time; return the exit code."""
    tested = self_test(registry.self_test_cases(run.device), run.device, run.seed, run.clock, say)
    run.report.head["self_test"] = tested
    run.report.write_json()
    is_wrong = any(result["status"] in ("wrong", "failed") for result in tested)
    try:
        run.cases(cases)
    except DeviceLost as error:
        say(str(error))
        run.report.head["ended_by"] = str(error)
        return WRONG
    return WRONG if is_wrong or run.num_wrong else 0


def head_of(device: torch.device, seed: int, command: str, rate: float) -> dict[str, Any]:
    """Return what stands at the head of the JSON: when, where, how."""
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017  datetime.UTC needs Python 3.11
    return {
        "run": now.strftime("%Y%m%dT%H%M%SZ"), "command": command, "seed": seed,
        **describe_machine(device), "copy_bytes_per_second": rate,
    }  # fmt: skip


def summary(report: Report) -> str:
    """Return the run in a line."""
    counts = {
        status: sum(row["status"] == status for row in report.rows)
        for status in ("timed", "wrong", "failed", "skipped")
    }
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{said}; written: {report.folder / CSV_NAME}, {report.folder / JSON_NAME}"


def read_run(path: str | Path) -> Mapping[str, Any]:
    """Read a run's JSON.

    Raises ValueError, which names the file, where it holds none.
    """
    try:
        read: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    return read


def report_comparison(old: Mapping[str, Any], new: Mapping[str, Any], margin: float) -> int:
    """Print how two runs differ; return the exit code."""
    compared = compare.compare(old, new, margin)
    say(f"compared at a margin of {margin:.0%}:")
    for line in compared.lines():
        say(line)
    return WORSE if compared.is_worse else 0


def say(line: str) -> None:
    """Write a line of progress at once: a run that is cut off has said how far it came."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU; try --device cpu")
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tercet_kernels.bench",
        description="Time the kernels against their peers; each result is held against a reference first.",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu",
                        help="a CPU runs tiny shapes; TRITON_INTERPRET=1 lets it run the kernels")  # fmt: skip
    parser.add_argument("--minutes", type=_positive, default=8.0, help="hard budget (default: 8)")
    parser.add_argument("--out", default="bench-kernels", help="folder of the results (default: bench-kernels)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="cases with PART in their name")
    parser.add_argument("--list", action="store_true", help="list the cases and leave")
    parser.add_argument("--seed", type=int, default=0, help="of data, masks and order (default: 0)")
    parser.add_argument("--efficiency", action="store_true", help="measure K2 against cuBLAS first, shape by shape")
    parser.add_argument("--compare", nargs="+", metavar="JSON", action=_OneOrTwo,
                        help="a run to compare this one with; given two, compare them and run nothing")  # fmt: skip
    parser.add_argument("--margin", type=_positive, default=compare.MARGIN,
                        help=f"what may differ between runs (default: {compare.MARGIN:g})")  # fmt: skip
    return parser


class _OneOrTwo(argparse.Action):
    """Take one value or two."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if len(values) > 2:
            parser.error(f"--compare takes one file or two, not {len(values)}")
        setattr(namespace, self.dest, values)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} isn't above 0")
    return number
