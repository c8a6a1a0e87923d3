"""A fault planted into a copy of the kernels turns a proof red: one per proof; TERCET_LONG=1 plants all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.kernels.proof.faults import FAULTS
from tests.kernels.proof.planting import DEVICE, KINDS, Fault, hunt, plant
from tests.kernels.proof.processes import TTSEM
from tests.kernels.proof.shipped import all_shipped

LONG = os.environ.get("TERCET_LONG") == "1"


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.short or LONG], ids=lambda fault: fault.name)
def test_a_planted_fault_turns_a_proof_red(fault: Fault) -> None:
    if not TTSEM.is_dir() and any(proof.startswith(DEVICE) for proof in fault.proofs):
        pytest.skip(f"ttsem isn't in {TTSEM}; run: make install")
    assert hunt(fault).proof, f"nothing catches {fault}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fits_the_code_it_is_planted_into(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path)


def test_every_kernel_has_a_fault_of_arithmetic_and_one_of_memory() -> None:
    kinds: dict[str, set[str]] = {one.kernel: set() for one in all_shipped()}
    for fault in FAULTS:
        kinds[fault.kernel].add(fault.kind)
    assert set().union(*kinds.values()) == set(KINDS)
    assert {kernel for kernel, planted in kinds.items() if "accumulation" not in planted} <= {
        "similarity.pairs_above_kernel",  # shares tile_cosines with earlier_max_kernel
    }
    assert [kernel for kernel, planted in kinds.items() if not planted & {"store mask", "load mask"}] == [
        "minhash.round_kernel"  # its masks guard an atomic minimum that padding can't win
    ]


def test_a_fault_that_nothing_catches_is_told(tmp_path: Path) -> None:
    harmless = Fault(
        "package", "none", "a comment", "compiling.py", "from __future__", "# harmless\nfrom __future__",
        ("tests/kernels/test_dispatch.py::test_an_unknown_path_names_the_choices",),
    )  # fmt: skip
    assert not hunt(harmless).proof


@pytest.mark.parametrize("old", ["stands nowhere at all", "import "])
def test_a_fault_must_stand_exactly_once(old: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stands"):
        plant(Fault("package", "none", "x", "compiling.py", old, "", ()), tmp_path)
