"""Similarity on a GPU: square tiles of the lower triangle; a tile's dot products never leave the chip.

Programs walk super-tiles of GROUP x GROUP tiles, so that tiles running together share their rows in L2: at 1M x 768
bf16 a row of tiles alone would stream 4.7 TB/s from HBM at 600 TFLOP/s, groups of 8 ask for 1.2 TB/s (predicted).
Atomics are on integers, where order can't matter: a maximum of packed keys, a count of pairs that are sorted later.
Shapes: N rows, D features, P pairs; a tile has BLOCK rows of either side, in steps of BLOCK_D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tercet_kernels.compiling import TARGETS, Variant
from tercet_kernels.similarity.decide import in_order, settle_pairs
from tercet_kernels.similarity.rows import band_of_tensor_cores

LOW_INDEX = 0x7FFFFFFF
MOST_PROGRAMS = 1 << 30  # of one launch; a grid's first dimension ends at 2^31
PAIRS_PROGRAMS = 1 << 18  # of one launch that appends pairs: 4.3e9 dot products, about 16 ms of an H100 (predicted)
BUFFER_PAIRS = 1 << 22  # 32 MiB


@dataclass(frozen=True)
class Tiles:
    """One launch configuration: BLOCK rows by BLOCK rows, BLOCK_D features a step, GROUP x GROUP tiles together."""

    block: int
    block_d: int
    group: int
    num_warps: int
    num_stages: int

    @property
    def super_pairs(self) -> int:
        """Count the pairs that one super-tile can find."""
        return (self.block * self.group) ** 2


LARGE = Tiles(block=128, block_d=64, group=8, num_warps=8, num_stages=3)
LARGE_FP32 = Tiles(block=128, block_d=32, group=8, num_warps=8, num_stages=3)
ALIGNED = ("x_ptr", "inverse_ptr", "D", "stride")
SMALL = Tiles(block=64, block_d=32, group=4, num_warps=4, num_stages=3)
CONFIGS = (LARGE, LARGE_FP32, SMALL)


def pick(rows: int, dtype: torch.dtype, *, is_sharp: bool) -> Tiles:
    """Choose tiles: small ones where large ones would leave an H100's 132 multiprocessors idle.

    Small ones as well for fp32 in three TF32 products, whose large tiles spill registers on every target.
    """
    if rows <= 2048 or (is_sharp and dtype == torch.float32):
        return SMALL
    return LARGE_FP32 if dtype == torch.float32 else LARGE


@triton.jit
def triangle_row(t, guess):
    """Return the row i of int64 place t = i (i + 1) / 2 + j of a lower triangle, from a guess at most 1 off."""
    guess = tl.where(guess * (guess + 1) // 2 > t, guess - 1, guess)
    return tl.where((guess + 1) * (guess + 2) // 2 <= t, guess + 1, guess)


@triton.jit
def triangle_position(t):
    """Return (i, j), j <= i, of int64 place t; exact below 2^50.

    An fp64 root that is rounded right needs no mending, one that is a bit off does. fp32 is off by thousands at 2^31.
    """
    guess = ((tl.sqrt(8.0 * t.to(tl.float64) + 1.0) - 1.0) * 0.5).to(tl.int64)
    i = triangle_row(t, guess)
    return i, t - i * (i + 1) // 2


@triton.jit
def tile_position(first_super, GROUP: tl.constexpr):
    """Return (i, j) of this program's tile; j > i in the upper half of a super-tile on the diagonal."""
    program = tl.program_id(0)
    i, j = triangle_position((program // (GROUP * GROUP)).to(tl.int64) + first_super)
    inner = program % (GROUP * GROUP)
    return (i * GROUP + inner // GROUP).to(tl.int32), (j * GROUP + inner % GROUP).to(tl.int32)


@triton.jit
def tile_cosines(
    x_ptr, inverse_ptr, row, column, N, D, stride,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the cosines of `row` by `column`, -inf where the column isn't earlier; D is a multiple of BLOCK_D."""
    safe_row = tl.minimum(row, N - 1)  # a load in bounds needs no mask
    safe_column = tl.minimum(column, N - 1)
    feature = tl.arange(0, BLOCK_D)
    left_ptr = x_ptr + safe_row.to(tl.int64)[:, None] * stride + feature[None, :]
    right_ptr = x_ptr + safe_column.to(tl.int64)[:, None] * stride + feature[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, D, BLOCK_D):
        left, right = tl.load(left_ptr + start), tl.load(right_ptr + start)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    scale = tl.load(inverse_ptr + safe_row)[:, None] * tl.load(inverse_ptr + safe_column)[None, :]
    is_pair = (column[None, :] < row[:, None]) & (row < N)[:, None]
    return tl.where(is_pair, total * scale, float("-inf"))


@triton.jit
def earlier_max_kernel(
    x_ptr, inverse_ptr, key_ptr, first_super, N, D, stride,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Raise each row's key to the largest of (cosine, lowest column) in this tile."""
    i, j = tile_position(first_super, GROUP)
    if (j <= i) & (i * BLOCK < N):
        row = i * BLOCK + tl.arange(0, BLOCK)
        column = j * BLOCK + tl.arange(0, BLOCK)
        cosine = tile_cosines(x_ptr, inverse_ptr, row, column, N, D, stride, BLOCK, BLOCK_D, PRECISION)
        best, place = tl.max(cosine, axis=1, return_indices=True)  # the leftmost of equals
        # a float's bits, read as an integer, grow with it where it's positive and shrink where it's negative
        bits = best.to(tl.int32, bitcast=True)
        order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
        key = (order << 32) | (0x7FFFFFFF - (j * BLOCK + place)).to(tl.int64)
        tl.atomic_max(key_ptr + row, key, mask=(row < N) & (best > float("-inf")), sem="relaxed")


@triton.jit
def pairs_above_kernel(
    x_ptr, inverse_ptr, pair_ptr, count_ptr, first_super, N, D, stride, capacity, cut,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Append column * 2^32 + row for each cosine of at least `cut`; past `capacity` only count."""
    i, j = tile_position(first_super, GROUP)
    if (j <= i) & (i * BLOCK < N):
        row = i * BLOCK + tl.arange(0, BLOCK)
        column = j * BLOCK + tl.arange(0, BLOCK)
        cosine = tile_cosines(x_ptr, inverse_ptr, row, column, N, D, stride, BLOCK, BLOCK_D, PRECISION)
        if tl.max(tl.max(cosine, axis=1), axis=0) >= cut:  # rare, so it may be slow
            is_near = cosine >= cut
            one = tl.full((BLOCK, BLOCK), 1, tl.int64)
            slot = tl.atomic_add(tl.broadcast_to(count_ptr, (BLOCK, BLOCK)), one, mask=is_near, sem="relaxed")
            pair = (column.to(tl.int64)[None, :] << 32) | row.to(tl.int64)[:, None]
            tl.store(pair_ptr + slot, pair, mask=is_near & (slot < capacity))


def propose_max_fused(scaled_ND: Tensor, inverse_N: Tensor, tiles: Tiles | None = None) -> Tensor:
    """Return the earlier row with the largest cosine for each row; -1 for row 0.

    fp32 runs as three TF32 products (`tf32x3`): a maximum has no second look, so the first must be sharp.
    """
    tiles = tiles or pick(scaled_ND.shape[0], scaled_ND.dtype, is_sharp=True)
    scaled_ND = _whole_steps(scaled_ND, tiles)
    rows, features = scaled_ND.shape
    lowest = torch.iinfo(torch.int64).min
    key_N = torch.full((rows,), lowest, dtype=torch.int64, device=scaled_ND.device)
    for first, supers in _stretches(_supers(rows, tiles), MOST_PROGRAMS, tiles):
        earlier_max_kernel[(supers * tiles.group**2,)](
            scaled_ND, inverse_N, key_N, first, rows, features, scaled_ND.stride(0),
            **_constants(tiles), PRECISION=_sharp(scaled_ND.dtype), num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )  # fmt: skip
    return torch.where(key_N == lowest, -1, LOW_INDEX - (key_N & 0xFFFFFFFF))


def find_pairs_fused(
    x_ND: Tensor,
    scaled_ND: Tensor,
    inverse_N: Tensor,
    threshold: float,
    *,
    normalise: bool,
    tiles: Tiles | None = None,
    capacity: int = BUFFER_PAIRS,
) -> tuple[Tensor, Tensor]:
    """Return the sorted pairs with a cosine of at least `threshold`: proposed by the kernel, decided in fp64.

    A stretch of super-tiles that finds more pairs than the buffer holds runs again in smaller stretches; one super-tile
    always fits, so no pair is lost and the buffer never grows. fp32 runs as plain TF32, three times as fast as sharp.
    """
    tiles = tiles or pick(scaled_ND.shape[0], scaled_ND.dtype, is_sharp=False)
    scaled_ND = _whole_steps(scaled_ND, tiles)
    rows, features = scaled_ND.shape
    capacity = max(capacity, tiles.super_pairs)
    cut = threshold - band_of_tensor_cores(scaled_ND, is_tf32=scaled_ND.dtype == torch.float32)
    packed_B = torch.empty(capacity, dtype=torch.int64, device=scaled_ND.device)
    pairs: list[Tensor] = [torch.empty((0, 2), dtype=torch.int64, device=scaled_ND.device)]
    values: list[Tensor] = [torch.empty(0, device=scaled_ND.device)]
    stretches = list(_stretches(_supers(rows, tiles), PAIRS_PROGRAMS, tiles))
    while stretches:
        first, supers = stretches.pop()
        count = torch.zeros(1, dtype=torch.int64, device=scaled_ND.device)
        pairs_above_kernel[(supers * tiles.group**2,)](
            scaled_ND, inverse_N, packed_B, count, first, rows, features, scaled_ND.stride(0), capacity, cut,
            **_constants(tiles), PRECISION=None, num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )  # fmt: skip
        found = int(count)
        if found > capacity:
            part = -(-supers * capacity // (2 * found)) or 1
            stretches += [(first + at, min(part, supers - at)) for at in range(0, supers, part)]
            continue
        packed_P = packed_B[:found]
        proposed_P2 = torch.stack([packed_P >> 32, packed_P & 0xFFFFFFFF], dim=1)
        kept_P2, kept_P = settle_pairs(x_ND, proposed_P2, threshold, normalise=normalise)
        pairs.append(kept_P2)
        values.append(kept_P)
    return in_order(torch.cat(pairs), torch.cat(values))


def variants() -> list[Variant]:
    """List every configuration that ships: what `pick` may answer, for each kernel and dtype."""
    return [
        *(variant for dtype in ("bf16", "fp16") for tiles in (LARGE, SMALL) for variant in _max_variants(dtype, tiles)),
        *_max_variants("fp32", SMALL),
        *(_pairs_variant(dtype, tiles) for dtype in ("bf16", "fp16") for tiles in (LARGE, SMALL)),
        *(_pairs_variant("fp32", tiles) for tiles in (LARGE_FP32, SMALL)),
    ]


def _whole_steps(x_ND: Tensor, tiles: Tiles) -> Tensor:
    """Append zeros up to a multiple of BLOCK_D. Few embeddings need it; a mask in the loop would cost 128-bit loads."""
    missing = -x_ND.shape[1] % tiles.block_d
    return torch.nn.functional.pad(x_ND, (0, missing)) if missing else x_ND


def _supers(rows: int, tiles: Tiles) -> int:
    side = -(-rows // (tiles.block * tiles.group))
    return side * (side + 1) // 2


def _stretches(supers: int, most_programs: int, tiles: Tiles) -> Iterator[tuple[int, int]]:
    """Cut the super-tiles into launches: (first, how many)."""
    step = most_programs // tiles.group**2
    for first in range(0, supers, step):
        yield first, min(step, supers - first)


def _constants(tiles: Tiles) -> dict[str, int]:
    return {"BLOCK": tiles.block, "BLOCK_D": tiles.block_d, "GROUP": tiles.group}


def _sharp(dtype: torch.dtype) -> str | None:
    """Name the precision of fp32 products for a maximum; AMD has no tf32x3, but matrix units for full fp32."""
    if dtype != torch.float32:
        return None
    return "ieee" if torch.version.hip else "tf32x3"


def _max_variants(dtype: str, tiles: Tiles) -> Iterator[Variant]:
    nvidia = tuple(target for target in TARGETS if target.startswith("sm"))
    amd = tuple(target for target in TARGETS if not target.startswith("sm"))
    ways = (("tf32x3", nvidia), ("ieee", amd)) if dtype == "fp32" else ((None, TARGETS),)
    for precision, targets in ways:
        yield Variant(
            name=_label(dtype, tiles) + (f"-{precision}" if precision else ""),
            kernel=earlier_max_kernel,
            signature={
                "x_ptr": f"*{dtype}", "inverse_ptr": "*fp32", "key_ptr": "*i64", "first_super": "i32", "N": "i32",
                "D": "i32", "stride": "i32",
            },
            constants={**_constants(tiles), "PRECISION": precision},
            aligned=ALIGNED,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
            targets=targets,
        )  # fmt: skip


def _pairs_variant(dtype: str, tiles: Tiles) -> Variant:
    return Variant(
        name=_label(dtype, tiles),
        kernel=pairs_above_kernel,
        signature={
            "x_ptr": f"*{dtype}", "inverse_ptr": "*fp32", "pair_ptr": "*i64", "count_ptr": "*i64", "first_super": "i32",
            "N": "i32", "D": "i32", "stride": "i32", "capacity": "i32", "cut": "fp32",
        },
        constants={**_constants(tiles), "PRECISION": None},
        aligned=ALIGNED,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
    )  # fmt: skip


def _label(dtype: str, tiles: Tiles) -> str:
    return f"{dtype}-{tiles.block}x{tiles.block_d}"
