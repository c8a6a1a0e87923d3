"""Hold compiled kernels against the rules and against the lock."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.kernels.proof.lock import Entry
from tests.kernels.proof.machine_code import Facts
from tests.kernels.proof.rules import violations
from tests.kernels.proof.shipped import Shipped

# With other versions than the pinned one: one target each of NVIDIA and AMD, so that `make test-kernels` ends in time.
OTHER_TARGETS = ("sm_90", "gfx942")


def installed_triton() -> str:
    """Give the version of Triton in this environment."""
    return importlib.metadata.version("triton")


def for_version(shipped: Iterable[Shipped], version: str) -> list[Shipped]:
    """Give the variants with the targets that a version of Triton compiles them for."""
    if version == installed_triton():
        return list(shipped)
    narrowed = [
        dataclasses.replace(
            one,
            variant=dataclasses.replace(
                one.variant, targets=tuple(target for target in one.variant.targets if target in OTHER_TARGETS)
            ),
        )
        for one in shipped
    ]
    return [one for one in narrowed if one.variant.targets]


def jobs(shipped: Iterable[Shipped]) -> list[str]:
    """Name what there is to compile: VARIANT@TARGET."""
    return [f"{one.name}@{target}" for one in shipped for target in one.variant.targets]


def judge_rows(shipped: Iterable[Shipped], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which freshly compiled rows break a rule, failed to compile, or are missing."""
    by_job = {f"{row['variant']}@{row['target']}": row for row in rows}
    found = []
    for one in shipped:
        for target in one.variant.targets:
            row = by_job.get(f"{one.name}@{target}", {"failure": "the compiler's process said nothing of it"})
            broken = violations(one.variant, target, Facts(**row["facts"])) if "facts" in row else [row["failure"]]
            found += [f"{one.name} for {target}: {what}" for what in broken]
    return found


def judge_lock(shipped: Iterable[Shipped], entries: Mapping[str, Entry], *, may_spill_more: bool = False) -> list[str]:
    """Say which facts in the lock break a rule; a variant that it lacks is not its concern."""
    return [
        f"{one.name} for {target}: {what}"
        for one in shipped
        if one.name in entries
        for target, facts in entries[one.name].facts.items()
        for what in violations(one.variant, target, facts, may_spill_more=may_spill_more)
    ]


def differences(entries: Mapping[str, Entry], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where freshly compiled facts aren't those of the lock."""
    found = []
    for row in rows:
        locked = entries[row["variant"]].facts.get(row["target"]) if row["variant"] in entries else None
        fresh = Facts(**row["facts"]) if "facts" in row else None
        if locked != fresh:
            found.append(f"{row['variant']} for {row['target']}: the lock has {locked}, compiled anew {fresh}")
    return found
