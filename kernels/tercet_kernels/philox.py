"""Dropout masks from Philox-4x32-7, counted by position: the definition that the Triton kernels match bit for bit.

One call makes 8 lanes of 16 bits for 8 neighbouring columns of one row; an element is kept where its lane is at least
`p16`. Nothing is stored: forward and backward make the same mask from the same seed, for any tiling.

Philox: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; 7 rounds pass BigCrush there.
Shapes: M rows, K columns, C groups of 8 columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 7
LANES = 8
WORD = 0xFFFFFFFF


def quantise(dropout: float) -> int:
    """Return `dropout` in steps of 1/65536, the precision of a lane; an element is dropped with exactly that chance."""
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout is {dropout}; it must lie between 0 and 1")
    return round(dropout * 65536)


def inverse_keep(dropout: float) -> float:
    """Return 1 / (chance to be kept) of the quantised chance, so that the mean is unbiased; 0 where all is dropped."""
    kept = 65536 - quantise(dropout)
    return 65536 / kept if kept else 0.0


def keep_mask(seed: int | Tensor, rows: int, columns: int, p16: int, member: int = 0) -> Tensor:
    """Return the bool mask (rows, columns) of what a dropout of p16/65536 keeps.

    `seed` is a 64-bit key, as a number or as an int64 tensor, on whose device the mask is made without a wait; `member`
    tells the linears of a group apart, which share x but not their mask.
    """
    device = seed.device if isinstance(seed, Tensor) else None
    groups = -(-columns // LANES)
    position_MC = torch.arange(rows, device=device)[:, None] * groups + torch.arange(groups, device=device)[None, :]
    words = _philox((position_MC & WORD, position_MC >> 32, torch.full_like(position_MC, member)), seed)
    # the order in which the kernel's joins put the four words and their halves
    pairs = torch.stack([torch.stack(words[:2], -1), torch.stack(words[2:], -1)], -1)
    lanes = torch.stack([pairs & 0xFFFF, pairs >> 16], -1).reshape(rows, groups * LANES)[:, :columns]
    return lanes >= p16


def _philox(counter: tuple[Tensor, Tensor, Tensor], seed: int | Tensor) -> list[Tensor]:
    c0, c1, c2 = counter
    c3 = torch.zeros_like(c0)
    key0, key1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high2, low2 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, low2, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) & WORD, (key1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of a 32 x 32 product; int64 would overflow, so the left factor is split."""
    upper, lower = (word >> 16) * constant, (word & 0xFFFF) * constant
    low = ((upper & 0xFFFF) << 16) + lower
    return ((upper >> 16) + (low >> 32)) & WORD, low & WORD
