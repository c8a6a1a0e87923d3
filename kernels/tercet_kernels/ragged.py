"""Ragged batches: all rows' values one after another, and offsets that say where each row begins.

Shapes: U values, D rows, N parts of rows.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def check_rows(operator: str, values_U: Tensor, offsets_D1: Tensor) -> None:
    """Hold the offsets against their values: D + 1 int64 on the same device, from 0 up to U, never falling.

    Raises ValueError, which names the first row at fault.
    """
    if values_U.dim() != 1:
        raise ValueError(f"{operator}: the values have shape {tuple(values_U.shape)}; give all rows in one dimension")
    if offsets_D1.dim() != 1 or not len(offsets_D1) or offsets_D1.dtype != torch.int64:
        found = f"shape {tuple(offsets_D1.shape)} and dtype {offsets_D1.dtype}"
        raise ValueError(f"{operator}: offsets have {found}; give one row's start after another and the end, in int64")
    if offsets_D1.device != values_U.device:
        raise ValueError(
            f"{operator}: offsets are on {offsets_D1.device}, the values on {values_U.device}; bring them together"
        )
    falls_D = offsets_D1[1:] < offsets_D1[:-1]
    # one transfer for all three facts: each costs a synchronisation on a GPU
    first, last, falls = torch.stack([offsets_D1[0], offsets_D1[-1], falls_D.sum()]).tolist()
    if falls:
        raise ValueError(f"{operator}: offsets fall after row {int(falls_D.int().argmax())}; sort them")
    if first or last != len(values_U):
        raise ValueError(f"{operator}: offsets run from {first} to {last}; there are {len(values_U)} values from 0")


def spans(offsets_D1: Tensor) -> list[tuple[int, int]]:
    """List (start, end) of each row."""
    return list(itertools.pairwise(offsets_D1.tolist()))


def cut_rows(offsets_D1: Tensor, part: int) -> tuple[Tensor, Tensor]:
    """Cut rows into parts of at most `part` values; return each part's row and its first value. Empty rows have none.

    A grid of parts keeps every program equally busy, whether one row is long or all are short.
    """
    lengths_D = offsets_D1.diff()
    parts_D = (lengths_D + part - 1) // part
    count = int(parts_D.sum())
    rows_D = torch.arange(len(lengths_D), device=offsets_D1.device)
    row_N = torch.repeat_interleave(rows_D, parts_D, output_size=count)
    before_N = (parts_D.cumsum(0) - parts_D)[row_N]
    place_N = torch.arange(count, device=offsets_D1.device) - before_N
    return row_N, offsets_D1[row_N] + place_N * part
