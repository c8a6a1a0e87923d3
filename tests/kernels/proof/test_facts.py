"""Every shipped kernel compiles for GPUs that aren't here, within their limits, and the lock says what came of it.

In the short form only what changed since the lock was written is compiled; TERCET_LONG=1 compiles all, with three
versions of Triton.
"""

from __future__ import annotations

import os

import pytest
from tests.kernels.proof import lock
from tests.kernels.proof.judging import differences, for_version, installed_triton, jobs, judge_lock, judge_rows
from tests.kernels.proof.processes import OTHER_VERSIONS, compile_ahead, triton_at
from tests.kernels.proof.requiring import missing
from tests.kernels.proof.rules import list_faults
from tests.kernels.proof.shipped import Shipped, all_shipped

LONG = os.environ.get("TERCET_LONG") == "1"
WRITE = "write the lock anew: make kernel-facts ARGS=--write"


@pytest.fixture(scope="module")
def shipped() -> list[Shipped]:
    return all_shipped()


@pytest.fixture(scope="module")
def known() -> lock.Lock:
    return lock.read()


def test_every_kernel_lists_few_variants_of_different_names(shipped: list[Shipped]) -> None:
    assert list_faults(shipped) == []


@pytest.mark.timeout(1800)  # where every kernel changed; seconds where none did
def test_a_kernel_that_changed_since_the_lock_keeps_the_rules(shipped: list[Shipped], known: lock.Lock) -> None:
    if installed_triton() not in known:
        missing(f"the lock has no facts of triton {installed_triton()}; run: make kernel-facts ARGS=--write")
    new = lock.changed(known[installed_triton()], shipped)
    assert judge_rows(new, compile_ahead(jobs(new))) == []


def test_the_lock_is_of_these_kernels_in_every_version(shipped: list[Shipped], known: lock.Lock) -> None:
    for version, entries in known.items():
        stale = [one.name for one in lock.changed(entries, for_version(shipped, version))] + lock.gone(entries, shipped)
        assert stale == [], f"triton {version}; {WRITE}"


def test_the_facts_in_the_lock_keep_the_rules(shipped: list[Shipped], known: lock.Lock) -> None:
    for version, entries in known.items():
        assert judge_lock(shipped, entries, may_spill_more=version != installed_triton()) == [], f"triton {version}"


@pytest.mark.skipif(not LONG, reason="compiles every kernel anew; make test-kernels")
@pytest.mark.parametrize("version", [installed_triton(), *OTHER_VERSIONS])
def test_compiled_anew_the_facts_are_those_of_the_lock(version: str, shipped: list[Shipped], known: lock.Lock) -> None:
    other = version != installed_triton()
    if other and not triton_at(version).is_dir():
        missing(f"triton {version} isn't in {triton_at(version)}; make test-kernels puts it there")
    rows = compile_ahead(
        jobs(for_version(shipped, version)), version=version if other else "", processes=os.cpu_count() or 1
    )
    assert differences(known.get(version, {}), rows) == [], WRITE
