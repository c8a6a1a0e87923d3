"""Which rows to drop, given the pairs of rows that are too similar.

Shapes: N rows, P pairs (earlier, later).
"""

from __future__ import annotations

import torch
from torch import Tensor

MODES = ("any_earlier", "greedy", "components")


def duplicates(pairs_P2: Tensor, num_rows: int, *, mode: str = "any_earlier") -> Tensor:
    """Return a mask of the rows to drop, from sorted pairs (earlier, later) such as `pairs_above` gives.

    - "any_earlier": a row similar to any earlier row, kept or not (SemDeDup, NeMo Curator). The same as
      `earlier_max(x)[0] >= threshold`, without the pairs.
    - "greedy": a row similar to an earlier row that is itself kept. What it drops, "any_earlier" drops too.
    - "components": every row but the first of each connected component. What "any_earlier" drops, it drops too.

    No two rows that are kept are similar, in any mode.

    Raises ValueError for an unknown mode, a pair out of range, or pairs that aren't (earlier, later) in sorted order.
    """
    if mode not in MODES:
        raise ValueError(f"duplicates: mode is {mode!r}; choose from {', '.join(MODES)}")
    _check_pairs(pairs_P2, num_rows)
    drop_N = torch.zeros(num_rows, dtype=torch.bool, device=pairs_P2.device)
    if mode == "any_earlier":
        drop_N[pairs_P2[:, 1]] = True
        return drop_N
    if mode == "greedy":
        return _greedy(pairs_P2, drop_N)
    return _first_of_component(pairs_P2, num_rows) < torch.arange(num_rows, device=pairs_P2.device)


def _greedy(pairs_P2: Tensor, drop_N: Tensor) -> Tensor:
    earlier_G, size_G = torch.unique_consecutive(pairs_P2[:, 0], return_counts=True)
    later_by_group = torch.split(pairs_P2[:, 1], size_G.tolist())
    # in order of the earlier row, whose own fate is settled when its turn comes
    for earlier, later in zip(earlier_G.tolist(), later_by_group, strict=True):
        if not drop_N[earlier]:
            drop_N[later] = True
    return drop_N


def _first_of_component(pairs_P2: Tensor, num_rows: int) -> Tensor:
    """Label each row with the lowest row it's connected to: neighbours take the smaller label, then labels jump."""
    label_N = torch.arange(num_rows, device=pairs_P2.device)
    one_P, other_P = pairs_P2.unbind(1)
    while True:
        lower_P = torch.minimum(label_N[one_P], label_N[other_P])
        next_N = label_N.clone()
        for end_P in (one_P, other_P, label_N[one_P], label_N[other_P]):
            next_N.scatter_reduce_(0, end_P, lower_P, "amin")
        next_N = next_N[next_N]
        if torch.equal(next_N, label_N):
            return label_N
        label_N = next_N


def _check_pairs(pairs_P2: Tensor, num_rows: int) -> None:
    if pairs_P2.dim() != 2 or pairs_P2.shape[1] != 2 or pairs_P2.dtype != torch.int64:
        raise ValueError(f"duplicates: pairs are {tuple(pairs_P2.shape)} of {pairs_P2.dtype}; give (P, 2) of int64")
    if not len(pairs_P2):
        return
    one_P, other_P = pairs_P2.unbind(1)
    if int(one_P.min()) < 0 or int(other_P.max()) >= num_rows:
        raise ValueError(f"duplicates: a pair names row {int(pairs_P2.max())} or {int(one_P.min())} of {num_rows} rows")
    if not bool((one_P < other_P).all()):
        raise ValueError("duplicates: a pair isn't (earlier, later); sort the two rows of each pair")
    if bool((one_P.diff() < 0).any()):
        raise ValueError("duplicates: the pairs aren't in order of their earlier rows; sort them")
