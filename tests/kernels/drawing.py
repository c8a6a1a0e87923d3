"""How many examples a property draws: few by default, many in `make test-kernels`."""

from __future__ import annotations

import os


def examples(short: int, long: int = 400) -> int:
    """Return `short`, or `long` where TERCET_LONG=1."""
    return long if os.environ.get("TERCET_LONG") == "1" else short
