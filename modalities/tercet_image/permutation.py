"""A seeded permutation of 0..n-1 by arithmetic, so that a plan of any length needs no list."""

from __future__ import annotations

import hashlib

ROUNDS = 4  # of a Feistel network; four make a strong pseudorandom permutation (Luby and Rackoff, 1988)


def permute(index: int, size: int, key: str) -> int:
    """Give the place of `index` in a permutation of `size` elements that depends on `key` alone.

    A balanced Feistel network over the next even number of bits, walked until inside (Black and Rogaway, 2002).

    Raises:
        IndexError: `index` is outside 0..size-1.
    """
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside a permutation of {size}")
    half_bits = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half_bits) - 1
    place = index
    while True:
        left, right = place >> half_bits, place & mask
        for step in range(ROUNDS):
            left, right = right, left ^ (draw(f"{key}/{step}/{right}") & mask)
        place = left << half_bits | right
        if place < size:
            return place


def draw(key: str) -> int:
    """Hash `key` to 64 bits."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def take_digits(number: int, *bases: int) -> list[int]:
    """Write `number` in mixed radix, the last base first; what is left over comes as the first element."""
    digits: list[int] = []
    for base in reversed(bases):
        number, digit = divmod(number, base)
        digits.append(digit)
    return [number, *reversed(digits)]
