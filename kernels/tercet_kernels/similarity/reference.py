"""Similarity of rows, by definition: the whole N x N matrix of cosines in fp64.

    cos[i, j] = x[i] . x[j] / sqrt((x[i] . x[i]) (x[j] . x[j]))

One root of a product, not a product of two roots: a row and its copy have cosine 1.0 to the last bit.
Shapes: N rows, D features, P pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines_reference(x_ND: Tensor, *, normalise: bool = True) -> Tensor:
    """Return the fp64 cosine of every row with every row; plain dot products where `normalise` is off."""
    dots_NN = x_ND.double() @ x_ND.double().T
    if not normalise:
        return dots_NN
    square_N = dots_NN.diagonal()
    return dots_NN / (square_N[:, None] * square_N[None, :]).sqrt()


def earlier_max_reference(x_ND: Tensor, *, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Return each row's largest cosine to an earlier row, and the lowest row that has it; row 0: -inf and -1."""
    rows = x_ND.shape[0]
    values_N = torch.full((rows,), -math.inf, dtype=torch.float64, device=x_ND.device)
    index_N = torch.full((rows,), -1, dtype=torch.int64, device=x_ND.device)
    cosines_NN = cosines_reference(x_ND, normalise=normalise)
    for row in range(1, rows):
        index_N[row] = cosines_NN[row, :row].argmax()
        values_N[row] = cosines_NN[row, index_N[row]]
    return values_N, index_N


def pairs_above_reference(x_ND: Tensor, threshold: float, *, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Return every (earlier, later) with a cosine of at least `threshold`, sorted, and those cosines."""
    cosines_NN = cosines_reference(x_ND, normalise=normalise)
    pairs_P2 = (cosines_NN.triu(1) + cosines_NN.new_full(cosines_NN.shape, -math.inf).tril()).ge(threshold).nonzero()
    return pairs_P2, cosines_NN[pairs_P2[:, 0], pairs_P2[:, 1]]
