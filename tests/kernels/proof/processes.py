"""Child processes: with switches and a cache of their own, and the kernels and the Triton that they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[3]
PINNED = ""  # the version of Triton in the environment
OTHER_VERSIONS = ("3.6.0", "3.9.0")  # the oldest and the newest that we promise
TTSEM = Path(sys.prefix) / "ttsem"  # put there by `make test`; its metadata doesn't fit the environment's Python


# at the first failure, and without a search for a smaller one
STOP = ("-x", "-p", "tests.kernels.proof.unshrunk", "--hypothesis-profile=unshrunk")


def triton_at(version: str) -> Path:
    """Give the folder that `make test-kernels` puts another version of Triton into."""
    return REPOSITORY / ".cache" / f"triton-{version}"


def environment(*first: Path, **switches: str) -> dict[str, str]:
    """Give a child's environment: `first` are searched for modules before all else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "TERCET_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join(map(str, first)),
        "TRITON_DEFAULT_FP_FUSION": "1",
        "OMP_NUM_THREADS": "1",
        **switches,
    }


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to: the tests by their names, and all that it printed."""

    passed: list[str]
    failed: list[str]
    skipped: list[str]
    output: str


def run_tests(
    tests: Sequence[str], folder: Path, *, under_ttsem: bool = False, kernels: Path | None = None, stop: bool = False
) -> Outcome:
    """Run tests in a child, interpreted or under ttsem; `kernels` as in `compile_ahead`, `stop` ends at a failure.

    Raises RuntimeError where pytest doesn't get as far as running tests, so that a typo isn't taken for a finding.
    """
    first = [*([kernels] if kernels else []), *([TTSEM] if under_ttsem else [])]
    command = [sys.executable, "-m", *(["ttsem.sanitize"] if under_ttsem else []), "pytest", *tests, "-q"]
    report = folder / "report.xml"
    command += ["-p", "no:cacheprovider", "--hypothesis-seed=0", f"--junitxml={report}", *(STOP if stop else [])]
    switches = {"TRITON_CACHE_DIR": str(folder / "cache"), "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(*first, **switches), capture_output=True, text=True, check=False
    )
    output = done.stdout[-6000:] + done.stderr[-2000:]
    if done.returncode not in {0, 1} or not report.is_file():  # 0: all passed, 1: some failed
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{output}")
    found: dict[str, list[str]] = {"passed": [], "failure": [], "error": [], "skipped": []}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        found[next((child.tag for child in case if child.tag in found), "passed")].append(case.attrib["name"])
    if found["error"]:
        raise RuntimeError(f"fixtures or imports failed, not tests: {found['error']}\n{output}")
    return Outcome(found["passed"], found["failure"], found["skipped"], output)


def compile_ahead(
    wanted: Sequence[str], *, version: str = PINNED, kernels: Path | None = None, processes: int = 1
) -> list[dict[str, Any]]:
    """Compile each VARIANT@TARGET with a version of Triton; `kernels` is a folder whose tercet_kernels is taken.

    Raises RuntimeError with the child's last words where it fails as a whole.
    """
    first = [*([kernels] if kernels else []), *([triton_at(version)] if version else [])]
    shares = [list(wanted[start::processes]) for start in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        results = pool.map(lambda share: compile_share(share, first), filter(None, shares))
        return [row for rows in results for row in rows]


def compile_share(wanted: Sequence[str], first: Sequence[Path]) -> list[dict[str, Any]]:
    """Compile in one process."""
    command = [sys.executable, "-m", "tests.kernels.proof.compile_ahead", *wanted]
    with tempfile.TemporaryDirectory(prefix="tercet-ahead-") as cache:
        switches = {"TRITON_CACHE_DIR": cache, "TRITON_ALWAYS_COMPILE": "1", "TRITON_DUMP_PTXAS_LOG": "1"}
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment(*first, **switches), capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"compiling ahead of time failed:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
