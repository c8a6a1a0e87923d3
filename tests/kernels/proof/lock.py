"""The committed facts of every compiled kernel, and what became of them since.

`tests/kernels/facts.lock.json` has one line per version of Triton and variant: the digest of what was compiled, and
per target the facts in the order of `Facts`. It stands with the tests since nothing at run time reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.kernels.proof.machine_code import Facts
from tests.kernels.proof.shipped import Shipped, digest

LOCK = Path(__file__).parents[1] / "facts.lock.json"
COLUMNS = [column.name for column in fields(Facts)]


@dataclass
class Entry:
    """What one version of Triton made of one variant: facts by target."""

    digest: str
    facts: dict[str, Facts] = field(default_factory=dict)


Lock = dict[str, dict[str, Entry]]  # by version of Triton, then by variant


def read(path: Path = LOCK) -> Lock:
    """Read the lock; empty where there is none yet."""
    if not path.is_file():
        return {}
    written = json.loads(path.read_text())
    if written.pop("columns") != COLUMNS:
        raise ValueError(
            f"{path.name}: its columns aren't those of Facts; write it anew: make kernel-facts ARGS=--write"
        )
    return {
        version: {
            name: Entry(row.pop("digest"), {target: Facts(*numbers) for target, numbers in row.items()})
            for name, row in rows.items()
        }
        for version, rows in written.items()
    }


def write(lock: Lock, path: Path = LOCK) -> None:
    """Write the lock, one line per variant, so that a change is a line in the diff."""
    versions = [
        f"  {json.dumps(version)}: {{\n" + ",\n".join(line(name, rows[name]) for name in sorted(rows)) + "\n  }"
        for version, rows in sorted(lock.items())
    ]
    path.write_text("{\n" + ",\n".join([f'  "columns": {json.dumps(COLUMNS)}', *versions]) + "\n}\n")


def line(name: str, entry: Entry) -> str:
    """Lay out one variant's row."""
    row = {"digest": entry.digest} | {target: list(astuple(facts)) for target, facts in entry.facts.items()}
    return f"    {json.dumps(name)}: {json.dumps(row)}"


def changed(entries: Mapping[str, Entry], shipped: Iterable[Shipped]) -> list[Shipped]:
    """List the variants whose digest or targets aren't those of the lock."""

    def is_as_locked(one: Shipped) -> bool:
        entry = entries.get(one.name, Entry(""))
        return entry.digest == digest(one.variant) and set(entry.facts) == set(one.variant.targets)

    return [one for one in shipped if not is_as_locked(one)]


def gone(entries: Mapping[str, Entry], shipped: Iterable[Shipped]) -> list[str]:
    """Name the variants in the lock that no operator lists any more."""
    return sorted(set(entries) - {one.name for one in shipped})


def updated(
    entries: Mapping[str, Entry], shipped: Iterable[Shipped], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Entry]:
    """Put newly compiled rows in, and drop what no operator lists any more."""
    fresh: dict[str, Entry] = {}
    for row in rows:
        if "facts" in row:
            fresh.setdefault(row["variant"], Entry(row["digest"])).facts[row["target"]] = Facts(**row["facts"])
    return {one.name: entry for one in shipped if (entry := fresh.get(one.name) or entries.get(one.name))}
