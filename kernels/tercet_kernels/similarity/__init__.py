"""Cosine similarity of rows with earlier rows: the filter for semantic duplicates, exact and without an N x N matrix.

`earlier_max` gives each row its nearest earlier row, `pairs_above` every pair over a threshold, and `duplicates` says
which rows to drop. A fast pass over the lower triangle (a Triton kernel, or torch in blocks) proposes pairs; fp64
decides (`decide.py`).
Shapes: N rows, D features, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet_kernels.dispatch import choose_path
from tercet_kernels.similarity.blockwise import BLOCK_ROWS, find_pairs, propose_max
from tercet_kernels.similarity.decide import settle_max
from tercet_kernels.similarity.flags import duplicates
from tercet_kernels.similarity.rows import band_of_torch, checked_lengths, scaled_rows, unit_rows

__all__ = ["duplicates", "earlier_max", "pairs_above"]

MOST_ROWS = 2**31 - 4096  # a row's number, rounded up to a super-tile, stays an int32


@torch.no_grad()
def earlier_max(
    x_ND: Tensor, *, normalise: bool = True, path: str = "auto", block_rows: int = BLOCK_ROWS
) -> tuple[Tensor, Tensor]:
    """Return each row's largest cosine to an earlier row in fp32, and that row's number in int64.

    Row 0 has no earlier row: -inf and -1. Copies tie, and the lowest row wins. The value is the exact cosine of the
    named row, rounded once; the named row is the nearest one to within twice the fast pass's error (`rows.py`).
    Deterministic. `normalise=False` takes rows that already have length 1. `block_rows` bounds the memory of the torch
    path.

    Raises ValueError for a row with NaN, infinity or length 0, and names it.
    """
    _check("earlier_max", x_ND, block_rows)
    length_N = checked_lengths(x_ND, "earlier_max", normalise=normalise)
    if choose_path("similarity", x_ND, path).is_triton:
        from tercet_kernels.similarity.fused import propose_max_fused

        index_N = propose_max_fused(*scaled_rows(x_ND, length_N, normalise=normalise))
    else:
        index_N = propose_max(unit_rows(x_ND, length_N, normalise=normalise), block_rows)
    return settle_max(x_ND, index_N, normalise=normalise)


@torch.no_grad()
def pairs_above(
    x_ND: Tensor, threshold: float, *, normalise: bool = True, path: str = "auto", block_rows: int = BLOCK_ROWS
) -> tuple[Tensor, Tensor]:
    """Return all pairs (earlier, later) with a cosine of at least `threshold`, sorted, and their cosines in fp32.

    A pair that the fast pass sees within its error of the threshold is computed again in fp64, from the rows as given:
    low precision never decides, and every path gives the same pairs.

    Raises ValueError for a row with NaN, infinity or length 0, and names it; for a threshold outside [-1, 1].
    """
    _check("pairs_above", x_ND, block_rows)
    if not -1 <= threshold <= 1:
        raise ValueError(f"pairs_above: threshold is {threshold}; a cosine lies between -1 and 1")
    length_N = checked_lengths(x_ND, "pairs_above", normalise=normalise)
    if choose_path("similarity", x_ND, path).is_triton:
        from tercet_kernels.similarity.fused import find_pairs_fused

        return find_pairs_fused(x_ND, *scaled_rows(x_ND, length_N, normalise=normalise), threshold, normalise=normalise)
    units_ND = unit_rows(x_ND, length_N, normalise=normalise)
    return find_pairs(x_ND, units_ND, threshold, band_of_torch(units_ND), block_rows, normalise=normalise)


def _check(operator: str, x_ND: Tensor, block_rows: int) -> None:
    if x_ND.dim() != 2 or not x_ND.shape[1]:
        raise ValueError(f"{operator}: x has shape {tuple(x_ND.shape)}; give rows by features, at least one feature")
    if not x_ND.is_floating_point():
        raise ValueError(f"{operator}: x is {x_ND.dtype}; give floating point, such as x.float()")
    if x_ND.shape[0] > MOST_ROWS:
        raise ValueError(f"{operator}: x has {x_ND.shape[0]} rows; {MOST_ROWS} at most, so cluster them first")
    if block_rows < 1:
        raise ValueError(f"{operator}: block_rows is {block_rows}; give at least 1")
