"""What a fast pass proposes, fp64 decides: the cosines of named pairs, from the rows as they were given.

Every path ends here, so a value never depends on the hardware that proposed it.
Shapes: N rows, D features, P pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tercet_kernels.similarity.rows import CHUNK_ELEMENTS


def cosines(x_ND: Tensor, pairs_P2: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Return the fp64 cosine of each pair of rows, and whether the two are equal, number for number."""
    value_P = torch.empty(len(pairs_P2), dtype=torch.float64, device=x_ND.device)
    equal_P = torch.empty(len(pairs_P2), dtype=torch.bool, device=x_ND.device)
    step = max(1, CHUNK_ELEMENTS // x_ND.shape[1])
    for start in range(0, len(pairs_P2), step):
        part = slice(start, start + step)
        one_CD, other_CD = (x_ND[pairs_P2[part, side]].double() for side in (0, 1))
        value_C = (one_CD * other_CD).sum(1)
        if normalise:
            value_C /= (one_CD.square().sum(1) * other_CD.square().sum(1)).sqrt()
        value_P[part] = value_C
        equal_P[part] = (one_CD == other_CD).all(1)
    return value_P, equal_P


def settle_max(x_ND: Tensor, index_N: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Give each row's proposed neighbour its exact cosine, and name the first of equal copies.

    Two copies of a row tie exactly, yet a library may sum their dot products in different orders and propose the
    later one. A neighbour that copies its own neighbour is replaced by it, until none is left to replace.
    """
    values_N = torch.full(index_N.shape, -math.inf, dtype=torch.float64, device=x_ND.device)
    copies_N = torch.zeros_like(index_N, dtype=torch.bool)
    later_P = (index_N >= 0).nonzero()[:, 0]
    pairs_P2 = torch.stack([index_N[later_P], later_P], dim=1)
    values_N[later_P], copies_N[later_P] = cosines(x_ND, pairs_P2, normalise=normalise)
    while bool((hops_N := copies_N[index_N.clamp(min=0)] & (index_N > 0)).any()):
        index_N = torch.where(hops_N, index_N[index_N.clamp(min=0)], index_N)
    return values_N.float(), index_N


def settle_pairs(x_ND: Tensor, pairs_P2: Tensor, threshold: float, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Keep the proposed pairs with an exact cosine of at least `threshold`; return them with those cosines."""
    value_P, _ = cosines(x_ND, pairs_P2, normalise=normalise)
    kept_P = value_P >= threshold
    return pairs_P2[kept_P], value_P[kept_P].float()


def in_order(pairs_P2: Tensor, values_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sort pairs by their first row, then by their second."""
    rows = int(pairs_P2.max()) + 1 if len(pairs_P2) else 1
    order_P = (pairs_P2[:, 0] * rows + pairs_P2[:, 1]).argsort()
    return pairs_P2[order_P], values_P[order_P]
