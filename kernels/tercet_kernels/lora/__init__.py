"""LoRA linears, split at the rank: y = x W^T + bias + scaling (drop(x) A^T) B^T.

x is read once forward, dY once and x once backward. On a GPU no mask and no dropped x is stored; a CPU keeps one bit
per element. Linears that share x run as a group, which reads and keeps it once.

Shapes: M rows, K inputs, N outputs, R rank; x may have any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.lora.dora import DoraLinear
from tercet_kernels.lora.eager import STEPS as EAGER
from tercet_kernels.lora.function import LoraGroup, flatten
from tercet_kernels.lora.library import LIBRARY
from tercet_kernels.lora.member import Member
from tercet_kernels.lora.paths import choose, steps_for
from tercet_kernels.lora.reference import dora_reference, lora_reference
from tercet_kernels.philox import quantise

__all__ = [
    "LIBRARY", "Member", "choose", "compute_dtype", "dora_linear", "dora_reference", "lora_group", "lora_linear",
    "lora_reference",
]  # fmt: skip


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
    check(x, members)
    members = [member if training else without_dropout(member) for member in members]
    rows_MK, members = _prepare(x, members)
    if torch.compiler.is_compiling():
        ys = tuple(_through_library(rows_MK, member, path) for member in members)
    elif _is_transformed():  # vmap, jvp and their kin follow plain operations alone
        ys = tuple(lora_reference(rows_MK, member, _keep(rows_MK, member)) for member in members)
    else:
        seed = draw_seed(x) if any(member.dropout for member in members) else None
        numbers = tuple((member.scaling, member.dropout) for member in members)
        steps = steps_for(choose(rows_MK, members, path))
        ys = LoraGroup.apply(steps, numbers, rows_MK, seed, *flatten(members))  # type: ignore[no-untyped-call]
    return tuple(y_MN.view(*x.shape[:-1], y_MN.shape[-1]) for y_MN in ys)


def dora_linear(x: Tensor, member: Member, magnitude_N: Tensor, *, training: bool = True, path: str = "auto") -> Tensor:
    """Return y (..., N) of a DoRA linear, whose output n has the length magnitude_N[n]; see `lora_group`.

    With dropout it runs in plain torch on every device. The weight gets no gradient, and the bias keeps its own scale.
    """
    check(x, [member])
    if magnitude_N.shape != (member.weight_NK.shape[0],):
        raise ValueError(f"lora: magnitude has shape {tuple(magnitude_N.shape)}, not ({member.weight_NK.shape[0]},)")
    rows_MK, (member,) = _prepare(x, [member if training else without_dropout(member)])
    if torch.compiler.is_compiling() or _is_transformed():
        y_MN = dora_reference(rows_MK, member, magnitude_N, _keep(rows_MK, member))
    else:
        seed = draw_seed(x) if member.dropout else None
        steps = EAGER if member.dropout else steps_for(choose(rows_MK, [member], path))
        numbers = (member.scaling, member.dropout)
        tensors = (member.weight_NK, member.bias_N, member.a_RK, member.b_NR, magnitude_N)
        y_MN = DoraLinear.apply(steps, numbers, rows_MK, seed, *tensors)  # type: ignore[no-untyped-call]
    return y_MN.view(*x.shape[:-1], y_MN.shape[-1])


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


def _prepare(x: Tensor, members: Sequence[Member]) -> tuple[Tensor, list[Member]]:
    """Return x as rows, and the members, in the dtype of the arithmetic."""
    dtype = compute_dtype(x, members[0].weight_NK)
    return x.reshape(-1, x.shape[-1]).to(dtype), [_in_dtype(member, dtype) for member in members]


def _through_library(rows_MK: Tensor, member: Member, path: str) -> Tensor:
    seed = draw_seed(rows_MK) if member.dropout else None
    tensors = (member.weight_NK, member.bias_N, member.a_RK, member.b_NR)
    y_MN: Tensor = torch.ops.tercet.lora(rows_MK, seed, *tensors, member.scaling, member.dropout, path)[0]
    return y_MN


def _is_transformed() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def _keep(rows_MK: Tensor, member: Member) -> Tensor | None:
    if not member.dropout:
        return None
    return torch.rand_like(rows_MK, dtype=torch.float32) >= quantise(member.dropout) / 65536


def _in_dtype(member: Member, dtype: torch.dtype) -> Member:
    """Return `member` with weight and bias in the dtype of the arithmetic; the factors stay as they are."""
    if member.weight_NK.dtype == dtype:
        return member
    bias_N = None if member.bias_N is None else member.bias_N.to(dtype)
    return Member(member.weight_NK.to(dtype), bias_N, member.a_RK, member.b_NR, member.scaling, member.dropout)
