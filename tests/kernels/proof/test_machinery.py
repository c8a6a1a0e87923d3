"""The machinery itself: what changes a digest, what breaks a rule, what the lock keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import triton.language as tl
from tests.kernels.proof import lock, toy
from tests.kernels.proof.judging import differences, judge_rows
from tests.kernels.proof.machine_code import Facts, amd_facts, nvidia_facts
from tests.kernels.proof.rules import MOST_VARIANTS, list_faults, violations
from tests.kernels.proof.shipped import Shipped, argument_faults, bare, digest

GOOD = Facts(100, 0, 65_536, 8, 24, 20, 90, 8, 8)
LOG = (
    "0 bytes stack frame, 24 bytes spill stores, 12 bytes spill loads\nptxas info : Used 255 registers, 400 bytes cmem"
)


@pytest.fixture
def shipped() -> Shipped:
    return Shipped("toy", toy.variant("x_ptr", "y_ptr", "size"))


def test_comments_docstrings_and_blank_lines_are_no_code() -> None:
    told = 'def f(x):\n    """Say."""\n\n    # why\n    return x  # x\n'
    assert bare(told) == bare("def f(x):\n    return x\n")
    assert bare(told) != bare("def f(x):\n    return -x\n")


def test_a_digest_holds_the_configuration(shipped: Shipped) -> None:
    others = [
        replace(shipped.variant, num_warps=8),
        replace(shipped.variant, num_stages=2),
        replace(shipped.variant, aligned=("x_ptr",)),
        replace(shipped.variant, constants={"BLOCK": 512}),
        replace(shipped.variant, signature={**shipped.variant.signature, "size": "i64"}),
    ]
    assert len({digest(variant) for variant in [shipped.variant, *others]}) == 1 + len(others)


def test_a_digest_holds_constants_and_functions_that_the_kernel_uses(
    shipped: Shipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(shipped.variant)
    assert digest(shipped.variant) == before
    monkeypatch.setattr(toy, "OFFSET", tl.constexpr(4))
    with_constant = digest(shipped.variant)
    monkeypatch.setattr(toy, "shifted", toy.shift)
    assert len({before, with_constant, digest(shipped.variant)}) == 3


def test_a_variant_names_every_argument_once() -> None:
    variant = toy.variant()
    assert argument_faults(variant) == []
    wrong = replace(variant, signature={"x_ptr": "*fp32", "BLOCK": "i32", "z": "i32"}, aligned=("y_ptr",))
    assert argument_faults(wrong) == [
        "y_ptr has neither a type nor a value",
        "size has neither a type nor a value",
        "z is no argument of the kernel",
        "BLOCK has both a type and a value",
        "y_ptr is said to be aligned, but has no type",
    ]


@pytest.mark.parametrize(
    ("target", "change", "said"),
    [
        ("sm_80", {"spilled_bytes": 8}, "spills 8 bytes"),
        ("sm_80", {"shared_bytes": 166_913}, "shared memory"),
        ("sm_90", {"shared_bytes": 232_449}, "shared memory"),
        ("gfx942", {"shared_bytes": 65_537}, "shared memory"),
        ("sm_90", {"tensor_core": 0}, "tensor-core"),
        ("sm_90", {"wide_percent": 49}, "128 bits"),
    ],
)
def test_a_rule_catches_what_breaks_it(target: str, change: dict[str, int], said: str) -> None:
    variant = replace(toy.variant(), has_dot=True)
    assert violations(variant, target, GOOD) == []
    (broken,) = violations(variant, target, replace(GOOD, **change))
    assert said in broken


def test_a_justified_spill_must_be_exact() -> None:
    variant = replace(toy.variant(), spilled_bytes={"sm_80": 8})
    assert violations(variant, "sm_80", replace(GOOD, spilled_bytes=8)) == []
    assert violations(variant, "sm_80", GOOD)
    assert violations(variant, "sm_90", replace(GOOD, spilled_bytes=8))


def test_a_13th_variant_and_a_name_used_twice_are_caught(shipped: Shipped) -> None:
    def numbered(count: int) -> list[Shipped]:
        return [Shipped("toy", replace(shipped.variant, name=str(number))) for number in range(count)]

    assert list_faults(numbered(MOST_VARIANTS)) == []
    assert len(list_faults(numbered(MOST_VARIANTS + 1))) == len(shipped.variant.targets)
    assert list_faults([shipped, shipped]) == ["toy.shift/1024 is listed 2 times"]


def test_instructions_are_told_apart_by_name_and_width() -> None:
    sass = Counter({"LDG.E.128": 2, "LDGSTS.E.BYPASS.128": 3, "LDG.E.U16": 8, "LDG.E.64": 2, "LDS.128": 9})
    sass.update({"STG.E": 4, "STG.E.128": 1, "HGMMA.64x128x16.F32.BF16": 5, "HFMA2.BF16": 7})
    assert nvidia_facts(sass, 1024, LOG) == Facts(255, 24, 1024, 5, 15, 5, 71, 5, 1)


def test_amd_assembly_is_read_by_name_and_width() -> None:
    assembly = """
        global_load_dwordx4 v[0:3], v4, s[0:1]
        buffer_load_ushort v5, v6, s[4:7], 0 offen
        buffer_store_short v5, v6, s[4:7], 0 offen
        v_mfma_f32_16x16x16_bf16 a[0:3], v[0:1], v[2:3], a[0:3]
        .private_segment_fixed_size: 16
        .vgpr_count:     42
    """
    assert amd_facts(assembly, 512) == Facts(42, 16, 512, 1, 2, 1, 88, 1, 0)


def test_a_log_without_numbers_is_an_error_not_zero() -> None:
    with pytest.raises(ValueError, match="said nothing"):
        nvidia_facts(Counter(), 0, "ptxas: silence")


def test_a_lock_is_read_as_it_was_written(shipped: Shipped, tmp_path: Path) -> None:
    path = tmp_path / "facts.lock.json"
    facts = dict.fromkeys(shipped.variant.targets, GOOD)
    written = {"3.8.0": {shipped.name: lock.Entry(digest(shipped.variant), facts)}}
    lock.write(written, path)
    assert lock.read(path) == written
    assert lock.changed(written["3.8.0"], [shipped]) == []
    changed = Shipped("toy", replace(shipped.variant, num_warps=8))
    assert lock.changed(written["3.8.0"], [changed]) == [changed]
    fewer = Shipped("toy", replace(shipped.variant, targets=("sm_90",)))
    assert lock.changed(written["3.8.0"], [fewer]) == [fewer]
    assert lock.gone(written["3.8.0"], []) == [shipped.name]


def test_a_row_that_failed_or_never_came_is_a_violation(shipped: Shipped) -> None:
    rows = [{"variant": shipped.name, "target": "sm_90", "digest": "", "failure": "CompilationError: no"}]
    found = judge_rows([shipped], rows)
    assert len(found) == len(shipped.variant.targets)
    assert "toy.shift/1024 for sm_90: CompilationError: no" in found


def test_a_fact_that_isnt_the_locks_is_a_difference(shipped: Shipped) -> None:
    entries = {shipped.name: lock.Entry("", {"sm_90": GOOD})}
    row = {"variant": shipped.name, "target": "sm_90", "facts": vars(GOOD) | {"registers": 101}}
    assert len(differences(entries, [row])) == 1
    assert differences(entries, [row | {"facts": vars(GOOD)}]) == []
    assert len(differences(entries, [row | {"target": "sm_80", "facts": vars(GOOD)}])) == 1
