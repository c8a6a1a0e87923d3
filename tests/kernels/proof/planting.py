"""Faults planted into a copy of the kernels, and the proof that each of them turns red."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.proof.judging import judge_rows
from tests.kernels.proof.processes import REPOSITORY, compile_ahead, run_tests
from tests.kernels.proof.shipped import all_shipped

KERNELS = REPOSITORY / "kernels/tercet_kernels"
AHEAD, DEVICE = "ahead:", "tests/kernels/device/"
KINDS = ("store mask", "load mask", "accumulation", "race", "bf16", "resources")


@dataclass(frozen=True)
class Fault:
    """One line of a kernel made wrong: `old` stands once in `file` and becomes `new`.

    `proofs` may each catch it, the cheapest first: "ahead:VARIANT@TARGET" compiles ahead of time, a test under
    tests/kernels/device/ runs under ttsem, any other in the interpreter. `short` faults are planted by `make test` too.
    """

    kernel: str
    kind: str
    what: str
    file: str
    old: str
    new: str
    proofs: tuple[str, ...]
    short: bool = False

    @property
    def name(self) -> str:
        """Name the fault."""
        return f"{self.kernel}: {self.what}"


@dataclass(frozen=True)
class Caught:
    """Which proof turned red, and by which test or rule; empty where none did."""

    proof: str
    by: str


def plant(fault: Fault, folder: Path) -> Path:
    """Copy the kernels into `folder` with the fault in them; raises ValueError unless `old` stands there once."""
    source = (KERNELS / fault.file).read_text()
    if source.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: stands {source.count(fault.old)} times in {fault.file}: {fault.old!r}")
    copy = folder / "tercet_kernels"
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / fault.file).write_text(source.replace(fault.old, fault.new))
    return folder


def hunt(fault: Fault) -> Caught:
    """Run a fault's proofs until one turns red."""
    for proof in fault.proofs:
        with tempfile.TemporaryDirectory(prefix="tercet-fault-") as made:
            folder = Path(made)
            kernels = plant(fault, folder / "kernels")
            caught = compile_red(proof, kernels) if proof.startswith(AHEAD) else test_red(proof, kernels, folder)
        if caught:
            return caught
    return Caught("", "")


def compile_red(proof: str, kernels: Path) -> Caught | None:
    """Compile one variant of the copy, and hold it to the rules."""
    name, _, target = proof.removeprefix(AHEAD).rpartition("@")
    rows = compile_ahead([f"{name}@{target}"], kernels=kernels)
    shipped = [one for one in all_shipped() if one.name == name]
    if not rows or not shipped:
        raise ValueError(f"no operator lists {name} for {target}")
    broken = [found for found in judge_rows(shipped, rows) if found.startswith(f"{name} for {target}: ")]
    return Caught("ahead of time", broken[0].removeprefix(f"{name} ")) if broken else None


def test_red(proof: str, kernels: Path, folder: Path) -> Caught | None:
    """Run one test against the copy."""
    under_ttsem = proof.startswith(DEVICE)
    outcome = run_tests([proof], folder, under_ttsem=under_ttsem, kernels=kernels, stop=True)
    if not outcome.passed and not outcome.failed:
        raise RuntimeError(f"{proof} ran nothing:\n{outcome.output}")
    return Caught("ttsem" if under_ttsem else "interpreter", outcome.failed[0]) if outcome.failed else None
