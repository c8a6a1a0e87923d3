"""Plant every fault into a copy of the kernels, and print which proof turned red; exit 1 where one stays green.

make planted-faults                      all of them
make planted-faults ARGS='--only lora.'  those of the kernels whose name starts so
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.kernels.proof.faults import FAULTS
from tests.kernels.proof.planting import Caught, Fault, hunt, table


def attempt(fault: Fault) -> Caught:
    """Hunt a fault; one that can't be planted or run is no find, and says why."""
    try:
        return hunt(fault)
    except (ValueError, RuntimeError) as error:
        print(f"{fault.name}: {error}", file=sys.stderr)
        return Caught("", "")


def main() -> int:
    """Plant, hunt, print."""
    parser = argparse.ArgumentParser(description="plant faults into the kernels and see them caught")
    parser.add_argument("--only", default="", help="faults whose name starts so, such as lora.")
    asked = parser.parse_args()
    done = []
    for fault in [fault for fault in FAULTS if fault.name.startswith(asked.only)]:
        started = time.monotonic()
        done.append((fault, attempt(fault)))
        print(
            f"{time.monotonic() - started:5.1f} s  {fault.name}: {done[-1][1].proof or 'NOT CAUGHT'}", file=sys.stderr
        )
    print(table(done))
    return 0 if all(caught.proof for _, caught in done) else 1


if __name__ == "__main__":
    sys.exit(main())
