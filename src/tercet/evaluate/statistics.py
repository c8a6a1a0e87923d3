"""Paired statistics of error rates: the same items heard by both models, resampled by source.

Rates are sums of errors over sums of units (words), in points (percent). Shapes: S sources, B resamples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FEW_SOURCES = 5  # with fewer, resampling has too little to draw from for an interval to mean anything
POWER = 0.8  # how often `detectable` would have been found


@dataclass(frozen=True, slots=True)
class Counts:
    """One model's errors on one item, in `units` words; `source` is the sentence it came from."""

    source: str
    errors: float
    units: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base against tuned on one metric, in points; `low` and `high` bound the change (tuned minus base)."""

    base: float
    tuned: float
    change: float
    low: float
    high: float
    relative: float  # change over base, NaN where base is 0
    relative_low: float
    relative_high: float
    detectable: float  # smallest true change that this set would have found four times in five
    items: int
    sources: int  # those with units
    units: float

    @property
    def is_better(self) -> bool:
        """Say whether the whole interval lies on the better (lower) side."""
        return self.high < 0

    @property
    def is_worse(self) -> bool:
        """Say whether the whole interval lies on the worse (higher) side."""
        return self.low > 0


def compare(
    base: Sequence[Counts], tuned: Sequence[Counts], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Comparison | None:
    """Compare two models by the paired bootstrap over sources (Bisani and Ney, ICASSP 2004); None without units.

    Resampling whole sources, not items, keeps clips of one sentence by several voices from counting as independent.

    Raises:
        ValueError: the two sequences don't pair up.
    """
    if [(b.source, b.units) for b in base] != [(t.source, t.units) for t in tuned]:
        raise ValueError("base and tuned must hold the same items in the same order")
    names = {name: position for position, name in enumerate(dict.fromkeys(b.source for b in base))}
    which = np.array([names[b.source] for b in base], dtype=np.int64)
    sums = np.zeros((3, len(names)))  # base errors, tuned errors, units
    for row, values in enumerate(([b.errors for b in base], [t.errors for t in tuned], [b.units for b in base])):
        np.add.at(sums[row], which, values)
    units = float(sums[2].sum())
    if not units:
        return None
    drawn = _resampled(len(names), resamples, seed) @ sums.T
    drawn = drawn[drawn[:, 2] > 0]
    base_B, tuned_B = 100 * drawn[:, 0] / drawn[:, 2], 100 * drawn[:, 1] / drawn[:, 2]
    tail = (1 - confidence) / 2
    change_B = tuned_B - base_B
    low, high = np.quantile(change_B, [tail, 1 - tail])
    with_errors = base_B > 0
    ratio_B = change_B[with_errors] / base_B[with_errors]
    ratio = np.quantile(ratio_B, [tail, 1 - tail]) if len(ratio_B) else np.array([np.nan, np.nan])
    rates = 100 * sums[:2].sum(axis=1) / units
    standard_errors = NormalDist().inv_cdf(1 - tail) + NormalDist().inv_cdf(POWER)  # 2.8 at a confidence of 0.95
    return Comparison(
        base=float(rates[0]),
        tuned=float(rates[1]),
        change=float(rates[1] - rates[0]),
        low=float(low),
        high=float(high),
        relative=float((rates[1] - rates[0]) / rates[0]) if rates[0] else float("nan"),
        relative_low=float(ratio[0]),
        relative_high=float(ratio[1]),
        detectable=float(standard_errors * change_B.std()),
        items=len(base),
        sources=int((sums[2] > 0).sum()),
        units=units,
    )


@functools.lru_cache(maxsize=4)  # the metrics of one suite draw alike; 16 MB at 1,000 sources
def _resampled(sources: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Say how often each resample (row) draws each source."""
    generator = np.random.Generator(np.random.PCG64(seed))
    weights_BS = generator.multinomial(sources, np.full(sources, 1 / sources), size=resamples)
    return weights_BS.astype(np.float64)  # counts as floats: the product with sums runs in BLAS
