"""How the Triton kernels are cut: pure functions from shapes to tiles, so that nothing is tuned while training runs.

The numbers are starting points from the study's ahead-of-time compiles (no spills, within shared memory); none has been
timed. P is the rank padded for `tl.dot`; a width is G * P.
"""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_RANKS = 16  # tl.dot contracts no fewer 16-bit values
MOST_MEMBERS = 3
WIDEST_GROUP = 64  # columns of s that one program of K1 or K4b accumulates for a group; more would spill
PROGRAMS_PER_PROCESSOR = 4


@dataclass(frozen=True)
class Tile:
    """One launch: rows and columns of a program, the depth of its inner loop where there is one, warps and stages."""

    rows: int
    columns: int
    depth: int = 0
    num_warps: int = 4
    num_stages: int = 3


def padded_rank(rank: int) -> int:
    """Return the power of two, at least 16, that a rank is padded to in registers (never in memory)."""
    return max(FEWEST_RANKS, 1 << (rank - 1).bit_length())


def members_together(num_members: int, padded: int, element_bytes: int) -> int:
    """Return how many members one launch of K1 or K4b takes; in fp32 one, whose products need the registers."""
    if element_bytes == 4:
        return 1
    return max(1, min(num_members, MOST_MEMBERS, WIDEST_GROUP // padded))


def down_tile(num_rows: int, width: int, element_bytes: int) -> Tile:
    """Cut K1; `columns` is its step along K. Few rows get lower tiles, so that every processor has some."""
    if element_bytes == 4:
        return Tile(rows=32, columns=64, num_warps=8, num_stages=2)
    low = num_rows < 4096 or width > 48  # wider ones would spill
    return Tile(rows=32 if low else 64, columns=64, num_stages=3 if width <= 32 else 2)


def up_tile() -> Tile:
    """Cut K2b, which has no loop."""
    return Tile(rows=128, columns=128, num_warps=8, num_stages=1)


def gemm_tile(capability: tuple[int, int] | None, padded: int, element_bytes: int) -> Tile:
    """Cut K2 for a CUDA capability, None for HIP: 64 KiB of shared memory there, 160 on sm_80, 227 from sm_90 on."""
    if element_bytes == 4:
        return Tile(rows=128, columns=128 if capability else 64, depth=32, num_warps=8, num_stages=2)
    if capability is None:
        return Tile(rows=128, columns=128, depth=64, num_warps=8, num_stages=2)
    if capability[0] < 9 or capability[0] >= 12:  # consumer Blackwell (12) has 99 KiB
        return Tile(rows=128, columns=128, depth=64, num_warps=8, num_stages=3)
    columns = 256 if padded <= 64 else 128  # the small term's operands need the registers
    return Tile(rows=128, columns=columns, depth=64, num_warps=8, num_stages=4 if capability[0] == 9 else 3)


def bwd_s_tile(padded: int, element_bytes: int) -> Tile:
    """Cut K3: wide in N, for each block of columns leaves a partial ds of its own."""
    if element_bytes == 4:
        return Tile(rows=32, columns=64, num_warps=8, num_stages=2)
    return Tile(rows=64, columns=128, num_warps=4 if padded <= 32 else 8, num_stages=3)


def bwd_xa_tile(element_bytes: int) -> Tile:
    """Cut K4b."""
    return Tile(rows=64 if element_bytes == 2 else 32, columns=64, num_warps=8, num_stages=2)


def reduce_tile() -> Tile:
    """Cut K6: `columns` elements of the result a program."""
    return Tile(rows=1, columns=1024, num_stages=1)


def strips(num_rows: int, num_blocks: int, tile_rows: int, processors: int) -> tuple[int, int]:
    """Return (number of strips, rows of each): enough programs to fill the processors, no more partials than that."""
    wanted = -(-PROGRAMS_PER_PROCESSOR * processors // num_blocks)
    most = -(-num_rows // tile_rows)
    rows = -(-most // max(1, min(wanted, most))) * tile_rows
    return -(-num_rows // rows), rows
