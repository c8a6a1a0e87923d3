"""Two calls timed in the order A B B A: what the filters' benchmarks share."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRAWS = 2000


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Timed:
    """Median seconds of each side, and theirs over ours in each round: above 1, ours is faster."""

    ours: float
    theirs: float
    ratios: tuple[float, ...]

    def ratio(self, digits: int = 2) -> dict[str, Any]:
        """Give the ratio's median with the bootstrap's 95 %."""
        draw, count = random.Random(0), len(self.ratios)
        medians = sorted(statistics.median(draw.choices(self.ratios, k=count)) for _ in range(DRAWS))
        low, high = medians[DRAWS // 40], medians[-1 - DRAWS // 40]
        middle = statistics.median(self.ratios)
        return {"ratio": round(middle, digits), "ratio_95": [round(low, digits), round(high, digits)], "rounds": count}


def abba(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> Timed:
    """Time both, round by round, after one call of each to warm up."""
    ours(), theirs()
    times = [[seconds_of(call) for call in (ours, theirs, theirs, ours)] for _ in range(rounds)]
    return Timed(
        statistics.median(time for a, _, _, d in times for time in (a, d)),
        statistics.median(time for _, b, c, _ in times for time in (b, c)),
        tuple((b + c) / (a + d) for a, b, c, d in times),
    )
