"""DoRA: the adapted weight's rows keep a length of their own, which is learned (S.-Y. Liu et al., arXiv:2402.09353).

y = x W^T + bias + (g - 1) drop(x) W^T + g scaling (drop(x) A^T) B^T with g = magnitude / ||W + scaling B A||, the norm
taken per output and constant to the gradient. B A is never built: the squared norm is ||W||^2 + 2 scaling <W A^T, B> +
scaling^2 <B A A^T, B>.

Without dropout the four steps of any path do the work and g scales their result. With dropout the base's product is
wanted of drop(x) too, which no kernel makes; plain torch does.

Shapes: M rows, K inputs, N outputs, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from tercet_kernels.lora import eager
from tercet_kernels.lora.member import Member, Steps
from tercet_kernels.philox import inverse_keep

OUTPUTS_AT_ONCE = 4096  # of a 16-bit weight: rows converted to fp32 at a time for the norm


def row_norms(weight_NK: Tensor, a_RK: Tensor, b_NR: Tensor, scaling: float) -> Tensor:
    """Return ||W + scaling B A|| of each output (N,), summed in fp32, or in fp64 for an fp64 weight.

    Where the sum nearly cancels W, the three terms lose digits that the built sum would keep; it is never below 0.
    """
    dtype = torch.float64 if weight_NK.dtype == torch.float64 else torch.float32
    a_RK, gram_RR = a_RK.to(dtype), a_RK.to(dtype) @ a_RK.to(dtype).T
    parts = []
    for some_NK, some_b in zip(
        torch.split(weight_NK, OUTPUTS_AT_ONCE), torch.split(b_NR, OUTPUTS_AT_ONCE), strict=True
    ):
        weight, b = some_NK.to(dtype), some_b.to(dtype)
        cross = torch.addmm(weight @ a_RK.T, b, gram_RR, beta=2 * scaling, alpha=scaling**2)
        parts.append(weight.square().sum(1) + (cross * b).sum(1))
    return torch.cat(parts).clamp_min_(0).sqrt_()


class DoraLinear(torch.autograd.Function):
    """Compute y of one DoRA linear; call through `tercet_kernels.lora.dora_linear`."""

    @staticmethod
    def forward(
        ctx: Any, steps: Steps, numbers: tuple[float, float], x_MK: Tensor, seed: Tensor | None, *tensors: Any
    ) -> Tensor:
        """Run the steps on `tensors`: weight, bias, A, B, magnitude."""
        weight_NK, bias_N, a_RK, b_NR, magnitude_N = tensors
        member = Member(weight_NK, None, a_RK, b_NR, *numbers)
        x_MK = x_MK.detach()
        with torch.autocast(x_MK.device.type, enabled=False):
            norm_N = row_norms(weight_NK, a_RK, b_NR, member.scaling)
            gain_N = (magnitude_N / norm_N).to(x_MK.dtype)
            (s_MR,), (mask,) = steps.down(x_MK, [member], seed)
            if member.dropout:
                base_MN = _base_of_dropped(x_MK, mask, member)
                z_MN = torch.addmm(base_MN, s_MR, b_NR.to(x_MK.dtype).T)
                y_MN = linear(x_MK, weight_NK, bias_N).addcmul_(z_MN, gain_N).sub_(base_MN)
            else:
                z_MN = steps.up(x_MK, s_MR, member)
                y_MN = z_MN * gain_N if bias_N is None else torch.addcmul(bias_N, z_MN, gain_N)
        ctx.steps, ctx.numbers = steps, numbers
        kept = [x_MK, seed, s_MR, mask, z_MN if ctx.needs_input_grad[8] else None, gain_N, norm_N]
        ctx.save_for_backward(*kept, weight_NK, a_RK, b_NR, magnitude_N)
        return y_MN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_MN: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x, weight (none: it is frozen), bias, A, B and magnitude."""
        x_MK, seed, s_MR, mask, z_MN, gain_N, norm_N, weight_NK, a_RK, b_NR, magnitude_N = ctx.saved_tensors
        member = Member(weight_NK, None, a_RK, b_NR, *ctx.numbers)
        _, _, wants_x, _, _, wants_bias, wants_a, wants_b, wants_magnitude = ctx.needs_input_grad
        with torch.autocast(dy_MN.device.type, enabled=False):
            scaled_MN = dy_MN * gain_N
            ds_MR, db_NR = ctx.steps.backward_up(scaled_MN, s_MR, member, wants_b=wants_b)
            dx_MK, (da_RK,) = ctx.steps.backward_down(
                x_MK if wants_a else None, [ds_MR], [member], [mask], seed, wants_x=wants_x, indices=[0]
            )
            if wants_x and member.dropout:
                inner_MK = ((scaled_MN - dy_MN) @ weight_NK).mul_(inverse_keep(member.dropout))
                dx_MK = dx_MK.add_(eager.apply_mask_(inner_MK, mask, member)).addmm_(dy_MN, weight_NK)
            elif wants_x:
                dx_MK = dx_MK.addmm_(scaled_MN, weight_NK)
            dbias_N = dy_MN.sum(0) if wants_bias else None
            dmagnitude_N = None
            if wants_magnitude:
                dmagnitude_N = ((dy_MN * z_MN).sum(0, dtype=norm_N.dtype) / norm_N).to(magnitude_N.dtype)
        return None, None, dx_MK, None, None, dbias_N, da_RK, db_NR, dmagnitude_N


def _base_of_dropped(x_MK: Tensor, mask: Tensor, member: Member) -> Tensor:
    dropped_MK = eager.apply_mask(x_MK, mask, member)
    return torch.addmm(x_MK.new_zeros(()), dropped_MK, member.weight_NK.T, beta=0, alpha=inverse_keep(member.dropout))
