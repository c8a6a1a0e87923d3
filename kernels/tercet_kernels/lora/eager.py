"""The four steps in plain torch, for a CPU and for what no kernel covers.

A CPU keeps one bit per element of the mask; a GPU without Triton keeps one byte. Every product folds its scale into the
matrix multiplication, and the LoRA term is added in place, so y and dX are passed over once.

Shapes: M rows, K inputs, N outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.lora.member import Member, Steps
from tercet_kernels.philox import keep_mask, quantise

ROWS_AT_ONCE = 4096  # of a sum in fp32 over 16-bit rows: what is converted at a time
LARGEST_INT64 = 2**63 - 1


def down(x_MK: Tensor, members: Sequence[Member], seed: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return s = factor (mask x) A^T of each member, and the masks (empty where nothing is dropped)."""
    if len(members) > 1 and not any(member.dropout for member in members):
        a_RK = torch.cat([member.a_RK for member in members])
        s_MR = x_MK @ a_RK.to(x_MK.dtype).T
        if any(member.factor != 1.0 for member in members):
            s_MR *= _per_column(members, s_MR)
        return list(torch.split(s_MR, [member.rank for member in members], dim=1)), [_no_mask(x_MK) for _ in members]
    small, masks = [], []
    for index, member in enumerate(members):
        mask = draw_mask(x_MK, member, seed, index)
        a_RK = member.a_RK.to(x_MK.dtype)
        small.append(_product(apply_mask(x_MK, mask, member), a_RK.T, member.factor))
        masks.append(mask)
    return small, masks


def up(x_MK: Tensor, s_MR: Tensor, member: Member) -> Tensor:
    """Return y = x W^T + bias + s B^T."""
    y_MN = torch.nn.functional.linear(x_MK, member.weight_NK, member.bias_N)
    return y_MN.addmm_(s_MR, member.b_NR.to(x_MK.dtype).T)


def backward_up(dy_MN: Tensor, s_MR: Tensor, member: Member, *, wants_b: bool) -> tuple[Tensor, Tensor | None]:
    """Return ds = factor dY B, and dB = dY^T s in the dtype of B."""
    ds_MR = _product(dy_MN, member.b_NR.to(dy_MN.dtype), member.factor)
    return ds_MR, sum_of_products(dy_MN, s_MR, member.b_NR.dtype) if wants_b else None


def backward_down(
    x_MK: Tensor | None,
    ds: Sequence[Tensor],
    members: Sequence[Member],
    masks: Sequence[Tensor],
    _seed: Tensor | None,
    *,
    wants_x: bool,
    indices: Sequence[int],  # noqa: ARG001  a kept mask needs no place in the group; a regenerated one does
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Return the LoRA share of dX, sum of mask (ds A), and each dA = ds^T (mask x); x is None where none is wanted."""
    dx_MK: Tensor | None = None
    das: list[Tensor | None] = []
    for ds_MR, member, mask in zip(ds, members, masks, strict=True):
        if x_MK is None:
            das.append(None)
        else:
            das.append(sum_of_products(ds_MR, apply_mask(x_MK, mask, member), member.a_RK.dtype))
        if not wants_x:
            continue
        a_RK = member.a_RK.to(ds_MR.dtype)
        if mask.numel() or dx_MK is None:
            share_MK = apply_mask_(ds_MR @ a_RK, mask, member)
            dx_MK = share_MK if dx_MK is None else dx_MK.add_(share_MK)
        else:
            dx_MK.addmm_(ds_MR, a_RK)
    return dx_MK, das


def draw_mask(x_MK: Tensor, member: Member, seed: Tensor | None, index: int) -> Tensor:
    """Draw the mask of one member from `seed`: packed bits on a CPU, bytes on a GPU, nothing without dropout.

    16 random bits decide an element: a torch `bernoulli_` draws a whole float for each, and takes four times as long.
    """
    if not member.dropout or seed is None:
        return _no_mask(x_MK)
    if x_MK.device.type != "cpu":  # as the kernels do: nothing waits for the seed to reach the host
        return keep_mask(seed, x_MK.shape[0], x_MK.shape[1], quantise(member.dropout), index).reshape(-1)
    import numpy as np

    generator = torch.Generator().manual_seed((int(seed) + index) % LARGEST_INT64)
    words = torch.empty(-(-x_MK.numel() // 4), dtype=torch.int64).random_(-LARGEST_INT64 - 1, None, generator=generator)
    # signed lanes, so the threshold moves down by half the range
    keep = words.view(torch.int16)[: x_MK.numel()] >= quantise(member.dropout) - 32768
    return torch.from_numpy(np.packbits(keep.numpy(), bitorder="little"))


def apply_mask(x_MK: Tensor, mask: Tensor, member: Member) -> Tensor:
    """Return x with dropped elements set to zero; x itself where nothing is dropped."""
    return x_MK if not mask.numel() or not member.dropout else _masked(x_MK, mask, torch.empty_like(x_MK))


def apply_mask_(x_MK: Tensor, mask: Tensor, member: Member) -> Tensor:
    """Set dropped elements of x to zero in place."""
    return x_MK if not mask.numel() or not member.dropout else _masked(x_MK, mask, x_MK)


def _masked(x_MK: Tensor, mask: Tensor, out_MK: Tensor) -> Tensor:
    if x_MK.device.type != "cpu":
        return torch.mul(x_MK, mask.view(x_MK.shape), out=out_MK)
    import numpy as np

    keep = np.unpackbits(mask.numpy(), count=x_MK.numel(), bitorder="little").reshape(x_MK.shape)
    if x_MK.dtype in (torch.float32, torch.float64):  # numpy multiplies by a byte mask six times faster than torch
        np.multiply(x_MK.numpy(), keep, out=out_MK.numpy(), casting="unsafe")
        return out_MK
    return torch.mul(x_MK, torch.from_numpy(keep).to(x_MK.dtype), out=out_MK)


def sum_of_products(left_MA: Tensor, right_MB: Tensor, dtype: torch.dtype) -> Tensor:
    """Return left^T right in `dtype`; sums over M stay in fp32 until they are written, also for 16-bit inputs."""
    if dtype == left_MA.dtype:
        return left_MA.T @ right_MB
    if left_MA.is_cuda and dtype == torch.float32:
        return torch.mm(left_MA.T, right_MB, out_dtype=dtype)
    total = torch.zeros(left_MA.shape[1], right_MB.shape[1], dtype=torch.float32, device=left_MA.device)
    for left, right in zip(torch.split(left_MA, ROWS_AT_ONCE), torch.split(right_MB, ROWS_AT_ONCE), strict=True):
        total.addmm_(left.T.float(), right.float())
    return total.to(dtype)


def _product(left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """Return alpha left right, the factor folded into the multiplication."""
    return left @ right if alpha == 1.0 else torch.addmm(left.new_zeros(()), left, right, beta=0, alpha=alpha)


def _per_column(members: Sequence[Member], like: Tensor) -> Tensor:
    factors = [factor for member in members for factor in [member.factor] * member.rank]
    return torch.tensor(factors, dtype=like.dtype, device=like.device)


def _no_mask(x_MK: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=x_MK.device)


STEPS = Steps(down, up, backward_up, backward_down)
