"""The constants of a family of hash functions, as the library of the same name draws them from a seed.

Shapes: P permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

FORMULAS = ("rensa-v2", "rensa-v1", "datatrove-64", "datatrove-32", "datasketch")
MERSENNE = (1 << 61) - 1
WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Permutations:
    """P hash functions: which formula, its factors and terms (64 bits each, as int64), and the seed they came from.

    `seed` is None for constants of your own; then no library can stand in for the formula.
    """

    formula: str
    factor_P: Tensor
    term_P: Tensor
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.formula not in FORMULAS:
            raise ValueError(f"minhash: formula is {self.formula!r}; choose from {', '.join(FORMULAS)}")
        for name, value_P in (("factor_P", self.factor_P), ("term_P", self.term_P)):
            if value_P.dtype != torch.int64 or value_P.dim() != 1 or not len(value_P):
                found = f"{value_P.dtype} of shape {tuple(value_P.shape)}"
                raise ValueError(f"minhash: {name} is {found}; give one int64 per permutation")
        if len(self.factor_P) != len(self.term_P):
            raise ValueError(f"minhash: {len(self.factor_P)} factors but {len(self.term_P)} terms; give as many")
        if self.formula == "rensa-v2" and self.count & (self.count - 1):
            raise ValueError(f"minhash: rensa-v2 with {self.count} permutations; give a power of two, such as 128")

    @property
    def count(self) -> int:
        """Count the permutations."""
        return len(self.factor_P)

    @property
    def is_wide(self) -> bool:
        """Tell whether signatures are uint64 rather than uint32."""
        return self.formula == "datatrove-64"

    @property
    def dtype(self) -> torch.dtype:
        """Give the signatures' dtype."""
        return torch.uint64 if self.is_wide else torch.uint32

    @property
    def empty(self) -> int:
        """Give what a document without shingles has everywhere: all ones."""
        return WORD if self.is_wide else WORD >> 32

    def to(self, device: torch.device | str) -> Permutations:
        """Move the constants to a device."""
        return Permutations(self.formula, self.factor_P.to(device), self.term_P.to(device), self.seed)


def permutations(count: int = 128, *, seed: int = 42, formula: str = "rensa-v2") -> Permutations:
    """Draw the constants of `count` permutations as the formula's own library does.

    rensa (both versions): Xoshiro256++ from a SplitMix64 of the seed, factors made odd. datatrove: numpy's RandomState,
    all factors below 2^61 - 1 and then all terms. datasketch's legacy scheme: the same generator, in turns.

    Raises ValueError for an unknown formula, a count below 1, or a count that isn't a power of two for rensa-v2.
    """
    if count < 1:
        raise ValueError(f"permutations: count is {count}; give at least 1")
    if formula not in FORMULAS:
        raise ValueError(f"permutations: formula is {formula!r}; choose from {', '.join(FORMULAS)}")
    factors, terms = _DRAW[formula](count, seed)
    return Permutations(formula, _bits(factors), _bits(terms), seed)


def _draw_rensa(count: int, seed: int) -> tuple[list[int], list[int]]:
    words = _xoshiro(seed)
    pairs = [(next(words) | 1, next(words)) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _draw_datatrove(count: int, seed: int) -> tuple[list[int], list[int]]:
    import numpy as np

    generator = np.random.RandomState(seed)
    return (
        generator.randint(1, MERSENNE, dtype=np.uint64, size=count).tolist(),
        generator.randint(0, MERSENNE, dtype=np.uint64, size=count).tolist(),
    )


def _draw_datasketch(count: int, seed: int) -> tuple[list[int], list[int]]:
    import numpy as np

    generator = np.random.RandomState(seed)
    pairs = [
        (int(generator.randint(1, MERSENNE, dtype=np.uint64)), int(generator.randint(0, MERSENNE, dtype=np.uint64)))
        for _ in range(count)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


_DRAW: dict[str, Callable[[int, int], tuple[list[int], list[int]]]] = {
    "rensa-v2": _draw_rensa,
    "rensa-v1": _draw_rensa,
    "datatrove-64": _draw_datatrove,
    "datatrove-32": _draw_datatrove,
    "datasketch": _draw_datasketch,
}


def _xoshiro(seed: int) -> Iterator[int]:
    """Yield Xoshiro256++ (Blackman and Vigna, arXiv:1805.01407), its state four words of SplitMix64."""
    state = []
    for step in range(1, 5):
        word = (seed + step * 0x9E3779B97F4A7C15) & WORD
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
        state.append(word ^ (word >> 31))
    a, b, c, d = state
    while True:
        yield (_rotate(a + d & WORD, 23) + a) & WORD
        shifted = b << 17 & WORD
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        d = _rotate(d, 45)


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & WORD


def _bits(words: list[int]) -> Tensor:
    return torch.tensor(words, dtype=torch.uint64).view(torch.int64)
