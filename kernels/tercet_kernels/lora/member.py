"""What one linear of a group brings: its frozen weight, its adapter, and the four steps every path computes with them.

Shapes: M rows, K inputs, N outputs, R rank; G members share x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tercet_kernels.philox import inverse_keep


@dataclass(frozen=True)
class Member:
    """A linear with its adapter: y = x W^T + bias + scaling * (drop(x) A^T) B^T.

    `dropout` is the chance that an element of x is dropped on its way into A. The factors may have another dtype than
    the weight (fp32 factors beside a bf16 base); the arithmetic is in x's dtype with fp32 sums.
    """

    weight_NK: Tensor
    bias_N: Tensor | None
    a_RK: Tensor
    b_NR: Tensor
    scaling: float = 1.0
    dropout: float = 0.0

    @property
    def rank(self) -> int:
        """Return the rank R of the adapter."""
        return self.a_RK.shape[0]

    @property
    def factor(self) -> float:
        """Return what the mask and the scale multiply by together: scaling / (1 - dropout), in steps of 1/65536."""
        return self.scaling * inverse_keep(self.dropout)


@dataclass(frozen=True)
class Steps:
    """The four steps of one path, cut where only tensors of rank R pass from one to the next.

    s_g = factor (mask x) A^T carries the scale, so that y = x W^T + s B^T + bias and dB = dY^T s; ds_g = factor dY B,
    so that dA = ds^T (mask x) and dX = dY W + mask (ds A).
    """

    # x, members, seed -> s of each, what the backward needs to know of the masks
    down: Callable[[Tensor, Sequence[Member], Tensor | None], tuple[list[Tensor], list[Tensor]]]
    # x, s, member -> y
    up: Callable[[Tensor, Tensor, Member], Tensor]
    # dy, s, member; by keyword wants_b -> ds, dB
    backward_up: Callable[..., tuple[Tensor, Tensor | None]]
    # x (None where no dA is wanted), ds of each, members, masks, seed; by keyword wants_x, and indices: the members'
    # places in the group -> sum of mask (ds A), dA of each
    backward_down: Callable[..., tuple[Tensor | None, list[Tensor | None]]]
