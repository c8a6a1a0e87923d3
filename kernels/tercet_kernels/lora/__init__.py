"""LoRA linears, split at the rank: y = x W^T + bias + scaling (drop(x) A^T) B^T.

x is read once forward, dY once and x once backward. On a GPU no mask and no dropped x is stored; a CPU keeps one bit
per element. Linears that share x run as a group, which reads and keeps it once.

Shapes: M rows, K inputs, N outputs, R rank; x may have any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.dispatch import Choice, choose_path
from tercet_kernels.lora.eager import STEPS as EAGER
from tercet_kernels.lora.function import LoraGroup, flatten
from tercet_kernels.lora.member import Member, Steps
from tercet_kernels.lora.reference import dora_reference, lora_reference

__all__ = ["Member", "choose", "compute_dtype", "dora_reference", "lora_group", "lora_linear", "lora_reference"]

MAX_FUSED_RANK = 128  # above it LoRA is a tenth of the work and a plain product of A and B wins (kernels.md A5.5)
MIN_FUSED_ROWS = 64


def lora_linear(x: Tensor, member: Member, *, training: bool = True, path: str = "auto") -> Tensor:
    """Return y (..., N) of one linear with its adapter; see `lora_group`."""
    return lora_group(x, [member], training=training, path=path)[0]


def lora_group(
    x: Tensor, members: Sequence[Member], *, training: bool = True, path: str = "auto"
) -> tuple[Tensor, ...]:
    """Return y (..., N) of each member for one x (..., K).

    The arithmetic is in the autocast dtype where autocast is on, else in the dtype of the weights; sums are fp32, and
    the gradients of A and B are written in their own dtype straight from them. Dropout draws its seed from torch's
    generator of x's device, so activation checkpointing repeats it; it is off where `training` is False.

    Raises ValueError where a shape, dtype or rate doesn't fit.
    """
    members = [member if training else without_dropout(member) for member in members]
    dtype = compute_dtype(x, members[0].weight_NK)
    check(x, members)
    rows_MK = x.reshape(-1, x.shape[-1]).to(dtype)
    members = [_in_dtype(member, dtype) for member in members]
    seed = draw_seed(x) if any(member.dropout for member in members) else None
    steps = steps_for(choose(rows_MK, members, path))
    numbers = tuple((member.scaling, member.dropout) for member in members)
    ys: tuple[Tensor, ...] = LoraGroup.apply(  # type: ignore[no-untyped-call]
        steps, numbers, rows_MK, seed, *flatten(members)
    )
    return tuple(y_MN.view(*x.shape[:-1], y_MN.shape[-1]) for y_MN in ys)


def choose(x_MK: Tensor, members: Sequence[Member], path: str = "auto") -> Choice:
    """Choose the path of a group; ranks and sizes that the kernels don't serve well go to plain torch."""
    choice = choose_path("lora", x_MK, path)
    if not choice.is_triton:
        return choice
    if not x_MK.shape[0]:
        return Choice("torch", "an empty batch")
    largest = max(member.rank for member in members)
    if largest > MAX_FUSED_RANK:
        return Choice("torch", f"rank {largest} is above {MAX_FUSED_RANK}")
    if path == "auto" and x_MK.shape[0] < MIN_FUSED_ROWS:
        return Choice("torch", f"{x_MK.shape[0]} rows: the launches would cost more than the work")
    return choice


def steps_for(choice: Choice) -> Steps:
    """Return the steps of a path."""
    if not choice.is_triton:
        return EAGER
    from tercet_kernels.lora.launch import STEPS  # triton may be absent

    return STEPS


def draw_seed(x: Tensor) -> Tensor:
    """Draw the seed of a group's masks on x's own device: nothing waits, and CUDA graphs and checkpoints repeat it."""
    return torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=x.device)


def compute_dtype(x: Tensor, weight_NK: Tensor) -> torch.dtype:
    """Return the dtype of the arithmetic: autocast's where it is on, else the weight's."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return weight_NK.dtype


def without_dropout(member: Member) -> Member:
    """Return `member` as evaluation sees it."""
    return (
        Member(member.weight_NK, member.bias_N, member.a_RK, member.b_NR, member.scaling) if member.dropout else member
    )


def check(x: Tensor, members: Sequence[Member]) -> None:
    """Raise ValueError, naming the place and the value, where a group doesn't fit together."""
    if not members:
        raise ValueError("lora: a group needs at least one member")
    for index, member in enumerate(members):
        outputs, inputs = member.weight_NK.shape
        if x.shape[-1] != inputs:
            raise ValueError(f"lora: x has {x.shape[-1]} features; member {index} takes {inputs}")
        if member.a_RK.shape[1] != inputs or member.b_NR.shape != (outputs, member.rank):
            raise ValueError(
                f"lora: member {index}: A is {tuple(member.a_RK.shape)} and B {tuple(member.b_NR.shape)}; "
                f"a weight of ({outputs}, {inputs}) takes (rank, {inputs}) and ({outputs}, rank)"
            )
        if member.bias_N is not None and member.bias_N.shape != (outputs,):
            raise ValueError(f"lora: member {index}: bias has shape {tuple(member.bias_N.shape)}, not ({outputs},)")
        if not 0.0 <= member.dropout <= 1.0:
            raise ValueError(f"lora: member {index}: dropout is {member.dropout}; it must lie between 0 and 1")


def _in_dtype(member: Member, dtype: torch.dtype) -> Member:
    """Return `member` with weight and bias in the dtype of the arithmetic; the factors stay as they are."""
    if member.weight_NK.dtype == dtype:
        return member
    bias_N = None if member.bias_N is None else member.bias_N.to(dtype)
    return Member(member.weight_NK.to(dtype), bias_N, member.a_RK, member.b_NR, member.scaling, member.dropout)
