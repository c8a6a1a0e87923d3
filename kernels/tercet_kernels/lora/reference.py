"""The definition of a LoRA linear, in plain differentiable torch.

LoRA: E. J. Hu et al., arXiv:2106.09685. rsLoRA (D. Kalajdzievski, arXiv:2312.03732) differs in `scaling` alone:
alpha / sqrt(R) for alpha / R. DoRA: S.-Y. Liu et al., arXiv:2402.09353.

Shapes: M rows, K inputs, N outputs, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from tercet_kernels.lora.member import Member
from tercet_kernels.philox import inverse_keep


def lora_reference(x_MK: Tensor, member: Member, keep_MK: Tensor | None = None) -> Tensor:
    """Return y (M, N) of `member` for x; `keep_MK` is the bool mask of its dropout, None where nothing is dropped.

    The factors are rounded to x's dtype first, as every path does.
    """
    a_RK, b_NR = member.a_RK.to(x_MK.dtype), member.b_NR.to(x_MK.dtype)
    dropped_MK = dropped(x_MK, member, keep_MK)
    return linear(x_MK, member.weight_NK, member.bias_N) + member.scaling * linear(linear(dropped_MK, a_RK), b_NR)


def dora_reference(x_MK: Tensor, member: Member, magnitude_N: Tensor, keep_MK: Tensor | None = None) -> Tensor:
    """Return y (M, N) of a DoRA linear: magnitude / ||W + scaling B A|| scales the columns of what dropout let through.

    The base's own share of y never sees the dropout:
    y = x W^T + bias + (g - 1) drop(x) W^T + g scaling (drop(x) A^T) B^T with g = magnitude / norm. The norm
    is a constant to the gradient (section 4.3 of the paper).
    """
    dtype = x_MK.dtype
    a_RK, b_NR = member.a_RK.to(dtype), member.b_NR.to(dtype)
    dropped_MK = dropped(x_MK, member, keep_MK)
    norm_N = torch.linalg.norm(member.weight_NK + member.scaling * (b_NR @ a_RK), dim=1).detach()
    gain_N = magnitude_N.to(dtype) / norm_N
    base_MN = linear(dropped_MK, member.weight_NK)
    tuned_MN = base_MN + member.scaling * linear(linear(dropped_MK, a_RK), b_NR)
    y_MN: Tensor = linear(x_MK, member.weight_NK, member.bias_N) + gain_N * tuned_MN - base_MN
    return y_MN


def dropped(x_MK: Tensor, member: Member, keep_MK: Tensor | None) -> Tensor:
    """Return x with what the mask drops set to zero, and the rest scaled so that the mean stays."""
    return x_MK if keep_MK is None else x_MK * keep_MK * inverse_keep(member.dropout)
