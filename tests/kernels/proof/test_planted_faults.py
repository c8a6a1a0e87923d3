"""A fault planted into a copy of the kernels turns a proof red: one per proof; TERCET_LONG=1 plants all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.kernels.proof.faults import FAULTS, REASONS
from tests.kernels.proof.matrix import holes, matrix
from tests.kernels.proof.planting import DEVICE, KINDS, Caught, Fault, hunt, plant
from tests.kernels.proof.processes import TTSEM
from tests.kernels.proof.requiring import missing
from tests.kernels.proof.shipped import all_shipped

LONG = os.environ.get("TERCET_LONG") == "1"


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.short or LONG], ids=lambda fault: fault.name)
def test_a_planted_fault_turns_a_proof_red(fault: Fault) -> None:
    if not TTSEM.is_dir() and any(proof.startswith(DEVICE) for proof in fault.proofs):
        missing(f"ttsem isn't in {TTSEM}; run: make install")
    assert hunt(fault).proof, f"nothing catches {fault}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fits_the_code_it_is_planted_into(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path)


def test_every_kernel_has_a_fault_of_each_kind_or_a_reason() -> None:
    assert holes(FAULTS, REASONS, {one.kernel for one in all_shipped()}) == []


def test_a_kernel_excused_from_bf16_takes_no_floats() -> None:
    excused = [kernel for kernel, kind in REASONS if kind == "bf16"]
    types = {kind for one in all_shipped() if one.kernel in excused for kind in one.variant.signature.values()}
    assert types
    assert types <= {"*u8", "*u32", "*u64", "*i32", "*i64", "i32"}


def test_a_hole_and_a_reason_beside_the_point_are_told() -> None:
    fault = Fault("lora.up", "race", "x", "", "", "", ())
    reasons = dict.fromkeys((("lora.up", kind) for kind in KINDS if kind not in {"race", "bf16"}), "x")
    assert holes([fault], reasons, ["lora.up"]) == ["lora.up, bf16: no fault, and no reason"]
    reasons |= {("lora.up", "race"): "x", ("lora.up", "bf16"): "x", ("lora.gone", "race"): "x"}
    assert holes([fault], reasons, ["lora.up"]) == [
        "lora.up, race: a fault, and a reason why there is none",
        "lora.gone, race: no such kernel or kind",
    ]


def test_the_matrix_shows_what_caught_what() -> None:
    first, second = (Fault("lora.up", kind, "x", "", "", "", ()) for kind in ("race", "bf16"))
    shown = matrix([(first, Caught("ttsem", "t")), (second, Caught("", ""))], {("lora.up", "store mask"): "why"})
    assert shown.splitlines()[-1] == "| lora.up | – |  |  | ttsem | **nothing** |  |"


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
