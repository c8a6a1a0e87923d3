"""One autograd node for a group of LoRA linears that share x.

What is kept for the backward: x once for the whole group, s (M, R) of each member, and of each mask one bit per element
on a CPU, nothing on the Triton path. Where no adapter of the group needs a gradient, neither x nor s is kept.

Shapes: M rows, K inputs, N outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tercet_kernels.lora.member import Member, Steps

PER_MEMBER = 4  # weight, bias, A, B


class LoraGroup(torch.autograd.Function):
    """Compute y of each member; call through `tercet_kernels.lora.lora_group`."""

    @staticmethod
    def forward(
        ctx: Any, steps: Steps, numbers: tuple[tuple[float, float], ...], x_MK: Tensor, seed: Tensor | None, *flat: Any
    ) -> tuple[Tensor, ...]:
        """Run `down` once and `up` for each member; `numbers` holds (scaling, dropout) of each."""
        members = unflatten(flat, numbers)
        x_MK = x_MK.detach()
        with torch.autocast(x_MK.device.type, enabled=False):
            small, masks = steps.down(x_MK, members, seed)
            ys = tuple(steps.up(x_MK, s_MR, member) for s_MR, member in zip(small, members, strict=True))
        needs = Needs.of(ctx.needs_input_grad, len(members))
        ctx.steps, ctx.numbers = steps, numbers
        ctx.save_for_backward(
            x_MK if needs.anything_of_x else None,
            seed,
            *(s if wants else None for s, wants in zip(small, needs.b, strict=True)),
            *masks,
            *flat,
        )
        ctx.set_materialize_grads(False)
        return ys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient of x, and of each member's weight, bias, A and B where it is wanted."""
        count = len(dys)
        x_MK, seed, *rest = ctx.saved_tensors
        small, masks, flat = rest[:count], rest[count : 2 * count], rest[2 * count :]
        members = unflatten(flat, ctx.numbers)
        needs = Needs.of(ctx.needs_input_grad, count)
        grads: list[Tensor | None] = [None] * (PER_MEMBER * count)
        live = [index for index, dy in enumerate(dys) if dy is not None]
        if not live:
            return (None, None, None, None, *grads)
        rows = [_rows(dys[index]) for index in live]
        device = rows[0].device.type
        with torch.autocast(device, enabled=False):
            ds = []
            for index, dy_MN in zip(live, rows, strict=True):
                weight, bias = PER_MEMBER * index, PER_MEMBER * index + 1
                ds_MR, grads[bias + 2] = ctx.steps.backward_up(
                    dy_MN, small[index], members[index], wants_b=needs.b[index]
                )
                ds.append(ds_MR)
                if needs.weight[index]:
                    grads[weight] = dy_MN.T @ x_MK
                if needs.bias[index]:
                    grads[bias] = dy_MN.sum(0)
            some = [members[index] for index in live]
            wants_a = any(needs.a[index] for index in live)
            dx_MK, das = ctx.steps.backward_down(
                x_MK if wants_a else None,
                ds,
                some,
                [masks[index] for index in live],
                seed,
                wants_x=needs.x,
                indices=live,
            )
            for index, da_RK in zip(live, das, strict=True):
                grads[PER_MEMBER * index + 2] = da_RK if needs.a[index] else None
            if needs.x:
                for dy_MN, member in zip(rows, some, strict=True):
                    dx_MK.addmm_(dy_MN, member.weight_NK)
        return (None, None, dx_MK, None, *grads)


class Needs:
    """Which gradients are wanted of a group: of x, and per member of weight, bias, A and B."""

    def __init__(self, x: bool, wanted: Sequence[bool]) -> None:  # noqa: FBT001
        self.x = x
        self.weight, self.bias, self.a, self.b = (wanted[start::PER_MEMBER] for start in range(PER_MEMBER))
        self.anything_of_x = any(self.a) or any(self.weight)

    @classmethod
    def of(cls, needs_input_grad: Sequence[bool], count: int) -> Needs:
        """Read them from autograd's context: steps, numbers, x, seed, then the members."""
        return cls(needs_input_grad[2], needs_input_grad[4 : 4 + PER_MEMBER * count])


def flatten(members: Sequence[Member]) -> list[Tensor | None]:
    """List the tensors of the members in the order that `LoraGroup` takes them."""
    return [tensor for member in members for tensor in (member.weight_NK, member.bias_N, member.a_RK, member.b_NR)]


def unflatten(flat: Sequence[Any], numbers: Sequence[tuple[float, float]]) -> list[Member]:
    """Undo `flatten`."""
    members = []
    for index, (scaling, dropout) in enumerate(numbers):
        weight_NK, bias_N, a_RK, b_NR = flat[PER_MEMBER * index : PER_MEMBER * (index + 1)]
        members.append(Member(weight_NK, bias_N, a_RK, b_NR, scaling, dropout))
    return members


def _rows(dy_MN: Tensor | None) -> Tensor:
    assert dy_MN is not None
    return dy_MN if dy_MN.stride(-1) == 1 else dy_MN.contiguous()
