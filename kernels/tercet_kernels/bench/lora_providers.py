"""Who competes at LoRA: tercet's paths, PEFT where it is installed, and other orders of operations in plain torch.

The re-expressed orders (`peft_order`, `unsloth_order`) are ours, so that a machine without those packages has the
baselines; what they leave out is module overhead, in their favour.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout, linear

from tercet_kernels.bench.entries import triton_obstacle
from tercet_kernels.bench.lora_cases import Arguments, LoraProvider, Ready
from tercet_kernels.bench.parity import Keep
from tercet_kernels.lora import Member, lora_group
from tercet_kernels.lora.eager import draw_mask
from tercet_kernels.philox import inverse_keep, keep_mask, quantise

BASELINE_SLACK = 2.0  # their orders round S, the LoRA share and its scaled copy to 16 bits on the way


def lora_providers(device: torch.device, rate: float) -> list[LoraProvider]:
    """List the providers for a dropout rate, frozen first."""
    obstacle = triton_obstacle(device)
    found = [
        LoraProvider("frozen", prepare_frozen, None),
        LoraProvider("tercet_beta", _tercet("triton", fused=False), philox_keeps, obstacle),
        LoraProvider("tercet_fused", _tercet("triton", fused=True), philox_keeps, obstacle),
        LoraProvider("peft_order", peft_order(torch.float32), drawn_keeps(torch.float32), "", BASELINE_SLACK),
        LoraProvider("peft_order_bf16", peft_order(None), drawn_keeps(None), "", BASELINE_SLACK),
        LoraProvider("unsloth_order", prepare_unsloth, None, "no dropout" if rate else "", BASELINE_SLACK),
        LoraProvider("peft", real_peft(torch.float32), drawn_keeps(torch.float32), _peft_obstacle(), BASELINE_SLACK),
        LoraProvider("peft_bf16", real_peft(None), drawn_keeps(None), _peft_obstacle(), BASELINE_SLACK),
    ]
    if device.type == "cpu":  # what a CPU really runs
        found.append(LoraProvider("tercet_torch", _tercet("torch"), eager_keeps))
    return found


def compiled_providers(device: torch.device) -> list[LoraProvider]:
    """List torch.compile's providers beside the ones that they are compared with; minutes, not seconds."""
    some = {provider.name: provider for provider in lora_providers(device, 0.05)}
    modes = ("step", "forward")  # a compiled backward gives its buffers away: it runs once
    return [
        some["frozen"],
        some["tercet_beta"],
        some["peft_order"],
        LoraProvider("peft_order_compile", compiled_order, None, "", BASELINE_SLACK, modes),
        LoraProvider("peft_compile", compiled_peft, None, _peft_obstacle(), BASELINE_SLACK, modes),
    ]


def prepare_frozen(arguments: Arguments) -> Ready:
    """Bind the base linears alone."""

    def forward() -> tuple[Tensor, ...]:
        return tuple(linear(arguments.x_MK, member.weight_NK, member.bias_N) for member in arguments.members)

    return Ready(forward, (arguments.x_MK,))


def _tercet(path: str, *, fused: bool = False) -> Callable[[Arguments], Ready]:
    def prepare(arguments: Arguments) -> Ready:
        def forward() -> tuple[Tensor, ...]:
            with up_forced(fused=fused) if path == "triton" else nullcontext():
                return lora_group(arguments.x_MK, arguments.members, path=path)

        return Ready(forward, _everything(arguments))

    return prepare


@contextmanager
def up_forced(*, fused: bool) -> Iterator[None]:
    """Make the up step K2 (`fused`) or K2b and cuBLAS, whatever the launcher would prefer for the shape."""
    from tercet_kernels.lora import launch

    preference = launch.prefers_fused_gemm
    launch.prefers_fused_gemm = lambda x_MK: fused  # noqa: ARG005  the name is the signature's
    try:
        yield
    finally:
        launch.prefers_fused_gemm = preference


def peft_order(factor_dtype: torch.dtype | None) -> Callable[[Arguments], Ready]:
    """Bind PEFT's order of operations (peft/tuners/lora/layer.py, Linear.forward).

    Factors in fp32 under autocast are PEFT's default for 16-bit training; None takes factors in x's dtype.
    """

    def prepare(arguments: Arguments) -> Ready:
        arguments = with_factors_in(arguments, factor_dtype or arguments.x_MK.dtype)

        def forward() -> tuple[Tensor, ...]:
            with mixed(arguments, factor_dtype):
                return tuple(_peft_forward(arguments.x_MK, member) for member in arguments.members)

        return Ready(forward, _everything(arguments))

    return prepare


def _peft_forward(x_MK: Tensor, member: Member) -> Tensor:
    y_MN = linear(x_MK, member.weight_NK, member.bias_N)
    cast_MK = x_MK.to(member.a_RK.dtype)
    if member.dropout:
        cast_MK = dropout(cast_MK, member.dropout)
    total_MN: Tensor = y_MN + linear(linear(cast_MK, member.a_RK), member.b_NR) * member.scaling
    return total_MN.to(y_MN.dtype)


def real_peft(factor_dtype: torch.dtype | None, compiler: Callable[[Any], Any] | None = None) -> Any:
    """Bind PEFT's own module, one for each member."""

    def prepare(arguments: Arguments) -> Ready:
        dtype = factor_dtype or arguments.x_MK.dtype
        modules = [peft_module(member, dtype) for member in arguments.members]
        run = [compiler(module) for module in modules] if compiler else modules

        def forward() -> tuple[Tensor, ...]:
            with mixed(arguments, factor_dtype):
                return tuple(module(arguments.x_MK) for module in run)

        factors = [getattr(module, side)["default"].weight for side in ("lora_A", "lora_B") for module in modules]
        return Ready(forward, (arguments.x_MK, *factors))

    return prepare


def peft_module(member: Member, factor_dtype: torch.dtype) -> Any:
    """Return peft's LoRA linear with the weights and factors of `member`."""
    from peft import LoraConfig
    from peft.tuners.lora.layer import Linear

    outputs, inputs = member.weight_NK.shape
    base = torch.nn.Linear(inputs, outputs, bias=member.bias_N is not None, device="meta")
    base.weight = torch.nn.Parameter(member.weight_NK, requires_grad=False)
    if member.bias_N is not None:
        base.bias = torch.nn.Parameter(member.bias_N, requires_grad=False)
    alpha = int(member.scaling * member.rank)
    config = LoraConfig(r=member.rank, lora_alpha=alpha, lora_dropout=member.dropout, target_modules=["linear"])
    module = Linear(base, "default", config, r=member.rank, lora_alpha=alpha)
    for side, factor in (("lora_A", member.a_RK), ("lora_B", member.b_NR)):
        getattr(module, side)["default"].weight = torch.nn.Parameter(factor.detach().to(factor_dtype))
    return module.train()


def compiled_order(arguments: Arguments) -> Ready:
    """Bind torch.compile of PEFT's order; one compilation serves every copy of the arguments."""
    forward_one = _compiled_forward()

    def forward() -> tuple[Tensor, ...]:
        with mixed(arguments, torch.float32):
            return tuple(
                forward_one(
                    arguments.x_MK, member.weight_NK, member.bias_N, member.a_RK, member.b_NR, member.scaling,
                    member.dropout,
                )
                for member in arguments.members
            )  # fmt: skip

    return Ready(forward, _everything(arguments))


def compiled_peft(arguments: Arguments) -> Ready:
    """Bind torch.compile of PEFT's own module."""
    ready: Ready = real_peft(torch.float32, torch.compile)(arguments)
    return ready


def _compiled_forward() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(_peft_forward_of_tensors, dynamic=False)
    return compiled


def _peft_forward_of_tensors(x_MK: Tensor, *member: Any) -> Tensor:
    return _peft_forward(x_MK, Member(*member))


class UnslothOrder(torch.autograd.Function):
    """Unsloth's order for linears that share x: base first, the LoRA share onto it; the backward makes S again.

    After unsloth/kernels/fast_lora.py (LoRA_QKV), which has no dropout.
    """

    @staticmethod
    def forward(ctx: Any, scaling: float, x_MK: Tensor, *flat: Tensor | None) -> tuple[Tensor, ...]:
        """Take weight, bias, A and B of each member in turn."""
        ctx.scaling = scaling
        ctx.save_for_backward(x_MK, *flat)
        ys = []
        for weight_NK, bias_N, a_RK, b_NR in _fours(flat):
            y_MN = linear(x_MK, weight_NK, bias_N)
            ys.append(y_MN.addmm_(x_MK @ a_RK.to(x_MK.dtype).T, b_NR.to(x_MK.dtype).T, alpha=scaling))
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of x and of the factors."""
        x_MK, *flat = ctx.saved_tensors
        grads: list[Tensor | None] = []
        dx_MK: Tensor | None = None
        for dy_MN, (weight_NK, _, a_RK, b_NR) in zip(dys, _fours(flat), strict=True):
            a, b = a_RK.to(x_MK.dtype), b_NR.to(x_MK.dtype)
            ds_MR = dy_MN @ b
            da_RK = ctx.scaling * (ds_MR.T @ x_MK)
            db_NR = ctx.scaling * (dy_MN.T @ (x_MK @ a.T))
            dx_MK = dy_MN @ weight_NK if dx_MK is None else dx_MK.addmm_(dy_MN, weight_NK)
            dx_MK.addmm_(ds_MR, a, alpha=ctx.scaling)
            grads += [None, None, da_RK.to(a_RK.dtype), db_NR.to(b_NR.dtype)]
        return None, dx_MK, *grads


def prepare_unsloth(arguments: Arguments) -> Ready:
    """Bind Unsloth's order of operations."""
    flat = [
        tensor for member in arguments.members for tensor in (member.weight_NK, member.bias_N, member.a_RK, member.b_NR)
    ]
    scaling = arguments.members[0].scaling

    def forward() -> tuple[Tensor, ...]:
        ys: tuple[Tensor, ...] = UnslothOrder.apply(scaling, arguments.x_MK, *flat)  # type: ignore[no-untyped-call]
        return ys

    return Ready(forward, _everything(arguments))


def philox_keeps(arguments: Arguments) -> list[Keep | None]:
    """Return the masks that the Triton path draws."""
    rows, columns = arguments.x_MK.shape
    seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=arguments.x_MK.device)
    return [
        Keep(keep_mask(seed, rows, columns, quantise(member.dropout), index), inverse_keep(member.dropout))
        for index, member in enumerate(arguments.members)
    ]


def eager_keeps(arguments: Arguments) -> list[Keep | None]:
    """Return the masks that the torch path draws on a CPU, where they are packed to bits."""
    import numpy as np

    x_MK = arguments.x_MK.detach()
    seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64)
    keeps: list[Keep | None] = []
    for index, member in enumerate(arguments.members):
        packed = draw_mask(x_MK, member, seed, index)
        bits = np.unpackbits(packed.numpy(), count=x_MK.numel(), bitorder="little")
        keeps.append(Keep(torch.from_numpy(bits).view(x_MK.shape).bool(), inverse_keep(member.dropout)))
    return keeps


def drawn_keeps(factor_dtype: torch.dtype | None) -> Callable[[Arguments], list[Keep | None]]:
    """Return the masks that torch's dropout draws of x in the factors' dtype, one member after another."""

    def keeps(arguments: Arguments) -> list[Keep | None]:
        ones_MK = torch.ones_like(arguments.x_MK, dtype=factor_dtype or arguments.x_MK.dtype)
        return [Keep(dropout(ones_MK, member.dropout) != 0, 1 / (1 - member.dropout)) for member in arguments.members]

    return keeps


def with_factors_in(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """Return the arguments with factors in `dtype`, as leaves of their own."""
    members = tuple(
        Member(
            member.weight_NK, member.bias_N, member.a_RK.detach().to(dtype).requires_grad_(),
            member.b_NR.detach().to(dtype).requires_grad_(), member.scaling, member.dropout,
        )
        for member in arguments.members
    )  # fmt: skip
    return Arguments(arguments.x_MK, members, arguments.dys)


def mixed(arguments: Arguments, factor_dtype: torch.dtype | None) -> Any:
    """Enter autocast where the factors are wider than x, as a trainer does."""
    x_MK = arguments.x_MK
    if factor_dtype is None or factor_dtype == x_MK.dtype:
        return nullcontext()
    return torch.autocast(x_MK.device.type, dtype=x_MK.dtype)


def _everything(arguments: Arguments) -> tuple[Tensor, ...]:
    members = arguments.members
    return (arguments.x_MK, *(member.a_RK for member in members), *(member.b_NR for member in members))


def _fours(flat: Any) -> Iterator[Any]:
    yield from (flat[start : start + 4] for start in range(0, len(flat), 4))


def _peft_obstacle() -> str:
    return "" if importlib.util.find_spec("peft") else "peft isn't installed; run: pip install peft"
