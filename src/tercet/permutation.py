"""Order without a list: a keyed permutation of 0..size-1 computed per index, and an even spread of a share.

The permutation is a Feistel network with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains",
2002): every index maps to another, none twice, and nothing is kept in memory.
"""

from __future__ import annotations

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiples of it spread most evenly (Weyl sequence)
ROUNDS = 4


def mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of splitmix64)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & WORD
    return value ^ (value >> 31)


def permute(index: int, size: int, seed: int) -> int:
    """Give the place of `index` in a permutation of 0..`size`-1 that `seed` alone decides."""
    if not 0 <= index < size:
        raise ValueError(f"index {index} is outside 0..{size - 1}")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:  # the domain is below 4 x size, so a walk takes under 4 steps on average
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (mix(right + (seed + turn) * GOLDEN & WORD) & mask)
        index = left << half | right
        if index < size:
            return index


def spread(index: int, seed: int) -> float:
    """Place `index` in [0, 1) so that every run of indexes covers the interval evenly."""
    return ((index * GOLDEN + mix(seed & WORD)) & WORD) / 2.0**64
