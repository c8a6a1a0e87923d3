"""Tell two runs apart, noise aside.

Each entry's medians are drawn again and again from its samples; the interval of their ratio, new over old, decides.
"worse" is said where the whole interval lies above 1 + margin, "better" where it lies below 1 / (1 + margin). The
margin is for what samples of one run can't show: clocks, temperature and neighbours differ between runs.
Bootstrap: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
Shapes: B draws, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MARGIN = 0.05
DRAWS = 4000
TAIL = 0.0005  # at either end; of a thousand entries one is expected to pass by chance, and the margin holds it back


@dataclass(frozen=True)
class Verdict:
    """One entry of two runs: how the new median stands to the old, and what that means."""

    key: str
    ratio: float
    low: float
    high: float
    word: str

    def __str__(self) -> str:
        return f"{self.word:6} {self.ratio:.3f} ({self.low:.3f}-{self.high:.3f})  {self.key.replace('|', ' ')}"


@dataclass(frozen=True)
class Comparison:
    """All entries that both runs timed, and the keys that only one of them did."""

    verdicts: list[Verdict]
    only_old: list[str]
    only_new: list[str]
    warnings: list[str]

    @property
    def is_worse(self) -> bool:
        """Tell whether anything is clearly worse."""
        return any(verdict.word == "worse" for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """Return the comparison as text, what changed first."""
        counts = {word: sum(verdict.word == word for verdict in self.verdicts) for word in ("worse", "better", "same")}
        said = [*self.warnings, ", ".join(f"{count} {word}" for word, count in counts.items())]
        said += [str(verdict) for word in ("worse", "better") for verdict in self.verdicts if verdict.word == word]
        said += [f"only in the old run: {key.replace('|', ' ')}" for key in self.only_old]
        return said + [f"only in the new run: {key.replace('|', ' ')}" for key in self.only_new]


def compare(old: Mapping[str, Any], new: Mapping[str, Any], margin: float = MARGIN, seed: int = 0) -> Comparison:
    """Compare two runs as their JSON files hold them.

    Raises ValueError where one of them holds no samples.
    """
    for name, run in (("old", old), ("new", new)):
        if "samples_ms" not in run:
            raise ValueError(f"compare: the {name} run has no samples_ms; give a bench.json of this benchmark")
    before, after = old["samples_ms"], new["samples_ms"]
    generator = torch.Generator().manual_seed(seed)
    verdicts = [judge(key, before[key], after[key], margin, generator) for key in before if key in after]
    return Comparison(
        verdicts,
        [key for key in before if key not in after],
        [key for key in after if key not in before],
        [
            f"the {fact} differs: {old.get(fact)} then, {new.get(fact)} now"
            for fact in ("device", "torch", "triton")
            if old.get(fact) != new.get(fact)
        ],
    )


def judge(key: str, old: Sequence[float], new: Sequence[float], margin: float, generator: torch.Generator) -> Verdict:
    """Compare two samples of one entry."""
    ratio_B = _medians(new, generator) / _medians(old, generator)
    low, high = (float(torch.quantile(ratio_B, share)) for share in (TAIL, 1 - TAIL))
    ratio = float(torch.tensor(new, dtype=torch.float64).quantile(0.5) / torch.tensor(old).double().quantile(0.5))
    word = "worse" if low > 1 + margin else "better" if high < 1 / (1 + margin) else "same"
    return Verdict(key, ratio, low, high, word)


def _medians(samples: Sequence[float], generator: torch.Generator) -> Tensor:
    samples_S = torch.tensor(samples, dtype=torch.float64)
    drawn_BS = samples_S[torch.randint(len(samples_S), (DRAWS, len(samples_S)), generator=generator)]
    return drawn_BS.quantile(0.5, dim=1)
