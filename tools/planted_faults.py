"""Plant every fault into a copy of the kernels, and print which proof turned red.

make planted-faults                      all of them
make planted-faults ARGS='--only lora.'  those of the kernels whose name starts so

Exits with 1 where a fault stays green, or where a kernel has neither a fault of a kind nor a reason why not.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

from tests.kernels.proof.faults import FAULTS, REASONS
from tests.kernels.proof.matrix import details, exceptions, holes, matrix
from tests.kernels.proof.planting import Caught, Fault, hunt
from tests.kernels.proof.shipped import all_shipped


def attempt(fault: Fault) -> Caught:
    """Hunt a fault; one that can't be planted or run is no find, and says why."""
    started = time.monotonic()
    try:
        caught = hunt(fault)
    except (ValueError, RuntimeError) as error:
        print(f"{fault.name}: {error}", file=sys.stderr)
        caught = Caught("", "")
    print(f"{time.monotonic() - started:5.1f} s  {fault.name}: {caught.proof or 'NOT CAUGHT'}", file=sys.stderr)
    return caught


def main() -> int:
    """Plant, hunt, print."""
    parser = argparse.ArgumentParser(description="plant faults into the kernels and see them caught")
    parser.add_argument("--only", default="", help="faults whose name starts so, such as lora.")
    asked = parser.parse_args()
    started = time.monotonic()
    done = [(fault, attempt(fault)) for fault in FAULTS if fault.name.startswith(asked.only)]
    seconds, children = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(details(done), matrix(done, REASONS), exceptions(REASONS, {fault.kernel for fault, _ in done}), sep="\n\n")
    caught = sum(bool(by.proof) for _, by in done)
    used = children.ru_utime + children.ru_stime
    print(f"\n{caught} of {len(done)} faults caught in {seconds:.0f} s, {used:.0f} s of them on a processor")
    missing = holes(FAULTS, REASONS, {one.kernel for one in all_shipped()})
    print(*missing, sep="\n", file=sys.stderr)
    return 0 if caught == len(done) and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
