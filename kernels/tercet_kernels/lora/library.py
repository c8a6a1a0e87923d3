"""The LoRA linear as a torch operator: `torch.ops.tercet.lora`, for `torch.compile` and for export.

Defined by schema and implementation, not by `custom_op`, which costs 14-30 microseconds a call. Eager code uses the
autograd node of `function.py` instead; both run the same steps.

Shapes: M rows, K inputs, N outputs, R rank; s has R columns, or the padded P where Triton runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tercet_kernels.lora import tiles
from tercet_kernels.lora.member import Member, Steps
from tercet_kernels.lora.paths import choose, steps_for

ADAPTER = "Tensor weight, Tensor? bias, Tensor a, Tensor b, float scaling, float dropout, str path"
LIBRARY = torch.library.Library("tercet", "DEF")  # type: ignore[no-untyped-call]
SCHEMAS = (
    f"lora(Tensor x, Tensor? seed, {ADAPTER}) -> (Tensor, Tensor, Tensor)",
    f"lora_backward(Tensor dy, Tensor x, Tensor? seed, Tensor s, Tensor mask, {ADAPTER}, bool[] wants)"
    " -> (Tensor, Tensor, Tensor)",
)


def lora(x_MK: Tensor, seed: Tensor | None, *adapter: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, and what the backward needs: s and the mask."""
    member, steps = _read(x_MK, adapter)
    (s_MR,), (mask,) = steps.down(x_MK, [member], seed)
    return steps.up(x_MK, s_MR, member), s_MR, mask


def lora_backward(
    dy_MN: Tensor, x_MK: Tensor, seed: Tensor | None, s_MR: Tensor, mask: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dA and dB; what isn't wanted is empty."""
    *adapter, (wants_x, wants_a, wants_b) = rest
    member, steps = _read(x_MK, adapter)
    dy_MN = dy_MN if dy_MN.stride(-1) == 1 else dy_MN.contiguous()
    ds_MR, db_NR = steps.backward_up(dy_MN, s_MR, member, wants_b=wants_b)
    dx_MK, (da_RK,) = steps.backward_down(
        x_MK if wants_a else None, [ds_MR], [member], [mask], seed, wants_x=wants_x, indices=[0]
    )
    if dx_MK is not None:
        dx_MK.addmm_(dy_MN, member.weight_NK)
    return _or_empty(dx_MK, x_MK), _or_empty(da_RK, x_MK), _or_empty(db_NR, x_MK)


def lora_shapes(x_MK: Tensor, _seed: Tensor | None, *adapter: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors shaped as `lora`'s, for a trace."""
    *numbers, path = adapter
    member = Member(*numbers)
    num_rows, inputs = x_MK.shape
    fused = choose(x_MK, [member], path).is_triton
    columns = tiles.padded_rank(member.rank) if fused else member.rank
    elements = 0 if fused or not member.dropout else num_rows * inputs
    packed = x_MK.new_empty((elements + 7) // 8, dtype=torch.uint8)
    mask = x_MK.new_empty(elements, dtype=torch.bool) if x_MK.is_cuda and elements else packed
    return x_MK.new_empty(num_rows, member.weight_NK.shape[0]), x_MK.new_empty(num_rows, columns), mask


def lora_backward_shapes(
    _dy: Tensor, x_MK: Tensor, _seed: Tensor | None, _s: Tensor, _mask: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors shaped as `lora_backward`'s, for a trace."""
    _, _, a_RK, b_NR, *_, wants = rest
    empty = x_MK.new_empty(0)
    dx_MK, da_RK, db_NR = (
        torch.empty_like(tensor if want else empty) for tensor, want in zip((x_MK, a_RK, b_NR), wants, strict=True)
    )
    return dx_MK, da_RK, db_NR


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Save what `lora_backward` takes."""
    x_MK, seed, weight_NK, bias_N, a_RK, b_NR, *ctx.numbers = inputs
    _, s_MR, mask = output
    ctx.save_for_backward(x_MK, seed, s_MR, mask, weight_NK, bias_N, a_RK, b_NR)


def differentiate(ctx: Any, dy_MN: Tensor, _ds: Any, _dmask: Any) -> tuple[Any, ...]:
    """Return a gradient for each argument of `lora`."""
    x_MK, seed, s_MR, mask, weight_NK, bias_N, a_RK, b_NR = ctx.saved_tensors
    wants_x, _, wants_weight, wants_bias, wants_a, wants_b, *_ = ctx.needs_input_grad
    adapter = (weight_NK, bias_N, a_RK, b_NR, *ctx.numbers)
    dx_MK, da_RK, db_NR = torch.ops.tercet.lora_backward(
        dy_MN, x_MK, seed, s_MR, mask, *adapter, [wants_x, wants_a, wants_b]
    )
    return (
        dx_MK if wants_x else None,
        None,
        dy_MN.T @ x_MK if wants_weight else None,
        dy_MN.sum(0) if wants_bias else None,
        da_RK if wants_a else None,
        db_NR if wants_b else None,
        None,
        None,
        None,
    )


def _read(x_MK: Tensor, adapter: Any) -> tuple[Member, Steps]:
    *numbers, path = adapter
    member = Member(*numbers)
    return member, steps_for(choose(x_MK, [member], path))


def _or_empty(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if grad is None else grad


def _register(name: str, implementation: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    torch.library.impl(name, "default", implementation, lib=LIBRARY)
    torch.library.register_fake(name, shapes, lib=LIBRARY)


for schema in SCHEMAS:
    LIBRARY.define(schema)  # type: ignore[no-untyped-call]
_register("tercet::lora", lora, lora_shapes)
_register("tercet::lora_backward", lora_backward, lora_backward_shapes)
torch.library.register_autograd("tercet::lora", differentiate, setup_context=keep_for_backward, lib=LIBRARY)
