"""Show what the compilers made of every kernel, and keep the lock that says so: tests/kernels/facts.lock.json.

make kernel-facts                   the table, from the lock; changed kernels are compiled
make kernel-facts ARGS=--write      the same, and the lock is written, for every version of Triton
make kernel-facts ARGS=--all        compile all and compare with the lock
"""

from __future__ import annotations

import argparse
import sys

from tests.kernels.proof import lock
from tests.kernels.proof.judging import differences, for_version, installed_triton, jobs, judge_lock
from tests.kernels.proof.lock import Entry
from tests.kernels.proof.processes import OTHER_VERSIONS, compile_ahead, triton_at
from tests.kernels.proof.rules import list_faults
from tests.kernels.proof.shipped import all_shipped

HEAD = "| variant | target | registers | spilled B | shared B | tensor-core | wide / loads | wide % | wide / stores |"


def main() -> int:
    """Compile what is asked for, print the table and what is wrong with it."""
    parser = argparse.ArgumentParser(description="registers, spills, shared memory and instructions of every kernel")
    parser.add_argument("--all", action="store_true", help="compile everything, not only what changed")
    parser.add_argument("--write", action="store_true", help="write the lock, other versions of Triton included")
    parser.add_argument("--only", default="", help="kernels whose name starts so, such as lora.")
    parser.add_argument("--processes", type=int, default=1, help="how many compile side by side")
    asked = parser.parse_args()

    shipped = [one for one in all_shipped() if one.name.startswith(asked.only)]
    known = lock.read()
    found = list_faults(shipped)
    pinned = installed_triton()
    others = [version for version in OTHER_VERSIONS if asked.write and triton_at(version).is_dir()]
    for version in [pinned, *others]:
        entries, listed = known.get(version, {}), for_version(shipped, version)
        stale = listed if asked.all else lock.changed(entries, listed)
        rows = compile_ahead(jobs(stale), version="" if version == pinned else version, processes=asked.processes)
        found += [
            f"triton {version}: {row['variant']} for {row['target']}: {row['failure']}"
            for row in rows
            if "failure" in row
        ]
        if asked.all and not asked.write:
            found += [f"triton {version}: {difference}" for difference in differences(entries, rows)]
        kept = {name: entry for name, entry in entries.items() if not name.startswith(asked.only)}
        known[version] = kept | lock.updated(entries, listed, rows)
        found += [
            f"triton {version}: {broken}"
            for broken in judge_lock(listed, known[version], may_spill_more=version != pinned)
        ]
        if asked.write:
            lock.write(known)
    print(table({one.name: known[pinned][one.name] for one in shipped if one.name in known[pinned]}))
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


def table(entries: dict[str, Entry]) -> str:
    """Lay out the facts as Markdown."""
    lines = [HEAD, "|---|---|" + "---:|" * 7]
    for name, entry in entries.items():
        for target, facts in entry.facts.items():
            numbers = (facts.registers, facts.spilled_bytes, facts.shared_bytes, facts.tensor_core)
            widths = (
                f"{facts.wide_loads} / {facts.loads}",
                facts.wide_percent,
                f"{facts.wide_stores} / {facts.stores}",
            )
            lines.append(f"| {name} | {target} | " + " | ".join(map(str, numbers + widths)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
