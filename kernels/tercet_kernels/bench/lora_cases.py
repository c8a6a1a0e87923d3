"""LoRA cases: the linears of models that people train, and the arguments that every provider gets.

Shapes: M rows (batch x tokens), K inputs, N outputs, R rank; the members of a group share x.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet_kernels.bench.byte_model import lora_flops, lora_traffic
from tercet_kernels.bench.entries import Call, Case, Parity, Provider
from tercet_kernels.bench.parity import Keep, Results, check_step
from tercet_kernels.lora import Member

SCALING = 2.0  # alpha / rank of the usual alpha = 2 rank
SEED = 20_261_124  # of the masks of a parity check


@dataclass(frozen=True)
class LoraShape:
    """Linears that share x, as a model has them."""

    name: str
    rows: int
    inputs: int
    outputs: tuple[int, ...]
    has_bias: bool = False


# in order of value: small hidden sizes pay most for LoRA (kernels.md A3.2)
HEADLINES = (
    LoraShape("whisper-large-attn", 24000, 1280, (1280,), has_bias=True),
    LoraShape("llama-8b-qo", 8192, 4096, (4096,)),
    LoraShape("llama-8b-qkv", 8192, 4096, (4096, 1024, 1024)),
    LoraShape("whisper-large-qkv", 24000, 1280, (1280, 1280, 1280), has_bias=True),
    LoraShape("sdxl-attn", 16384, 1280, (1280,)),
    LoraShape("whisper-large-fc1", 24000, 1280, (5120,), has_bias=True),
    LoraShape("llama-8b-up", 8192, 4096, (14336,)),
    LoraShape("flux-attn", 8192, 3072, (3072,), has_bias=True),
)
OTHERS = (
    LoraShape("qwen-0.5b-qkv", 8192, 896, (896, 128, 128), has_bias=True),
    LoraShape("qwen-0.5b-up", 8192, 896, (4864,)),
    LoraShape("qwen-7b-qkv", 8192, 3584, (3584, 512, 512), has_bias=True),
    LoraShape("qwen-7b-up", 8192, 3584, (18944,)),
    LoraShape("llama-8b-gate-up", 8192, 4096, (14336, 14336)),
    LoraShape("llama-8b-down", 8192, 14336, (4096,)),
    LoraShape("whisper-large-fc2", 24000, 5120, (1280,), has_bias=True),
    LoraShape("llama-70b-qo", 8192, 8192, (8192,)),
    LoraShape("llama-70b-up", 8192, 8192, (28672,)),
)
TINY = (
    LoraShape("tiny", 70, 48, (40,), has_bias=True),
    LoraShape("tiny-qkv", 70, 48, (48, 24, 24)),
)


@dataclass(frozen=True)
class Arguments:
    """x (M, K), the members, and dY of each."""

    x_MK: Tensor
    members: tuple[Member, ...]
    dys: tuple[Tensor, ...]


@dataclass(frozen=True)
class Ready:
    """A provider with its arguments bound: the forward, and what it takes gradients with respect to.

    `wrt` is x, then A of each member, then B of each; a frozen linear has x alone.
    """

    forward: Callable[[], tuple[Tensor, ...]]
    wrt: tuple[Tensor, ...]


@dataclass(frozen=True)
class LoraProvider:
    """One implementation of a group of LoRA linears.

    `keeps` returns the dropout masks that a run draws right after `torch.manual_seed`; without it the reference is the
    mean over masks, and the bar as wide as a mask's own scatter. `slack` widens the bars: `check_step`.
    """

    name: str
    prepare: Callable[[Arguments], Ready]
    keeps: Callable[[Arguments], list[Keep | None]] | None
    obstacle: str = ""
    slack: float = 1.0
    modes: tuple[str, ...] = ("step", "forward", "backward")


def make_arguments(
    shape: LoraShape, rank: int, dropout: float, dtype: torch.dtype, device: torch.device, seed: int
) -> Arguments:
    """Draw x, weights, factors in fp32 and dY so that y and its LoRA share are both of size 1."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int, over: int = 1, into: torch.dtype = dtype) -> Tensor:
        return torch.randn(*size, generator=generator, device=device).div_(over**0.5).to(into)

    members = tuple(
        Member(
            normal(outputs, shape.inputs, over=shape.inputs),
            normal(outputs) if shape.has_bias else None,
            normal(rank, shape.inputs, over=shape.inputs, into=torch.float32).requires_grad_(),
            normal(outputs, rank, over=4 * rank, into=torch.float32).requires_grad_(),
            SCALING,
            dropout,
        )
        for outputs in shape.outputs
    )
    x_MK = normal(shape.rows, shape.inputs).requires_grad_()
    return Arguments(x_MK, members, tuple(normal(shape.rows, outputs) for outputs in shape.outputs))


def lora_case(
    shape: LoraShape, rank: int, dropout: float, dtype: torch.dtype, providers: Sequence[LoraProvider]
) -> Case:
    """Return the case of one shape; the first provider is the baseline."""
    size = dtype.itemsize
    outputs = sum(shape.outputs)
    return Case(
        operator="lora",
        shape=shape.name,
        m=shape.rows,
        k=shape.inputs,
        n="+".join(map(str, shape.outputs)),
        dtype=dtype,
        rank=rank,
        dropout=dropout,
        arguments=functools.partial(make_arguments, shape, rank, dropout, dtype),
        providers=tuple(_as_provider(provider, dropout) for provider in providers),
        baseline=providers[0].name,
        traffic=lambda provider, mode: lora_traffic(
            provider, mode, shape.rows, shape.inputs, shape.outputs, dropout=dropout, element_bytes=size
        ),
        flops={mode: lora_flops(mode, shape.rows, shape.inputs, shape.outputs) for mode in ("step", "forward")},
        argument_bytes=size * (shape.rows * (shape.inputs + outputs) + shape.inputs * outputs),
    )


def _as_provider(lora: LoraProvider, dropout: float) -> Provider:
    def check(arguments: Arguments) -> Parity:
        return check_provider(lora, arguments, dropout)

    def build(arguments: Arguments) -> Mapping[str, Call]:
        calls = calls_of(lora.prepare(arguments), arguments)
        return {mode: calls[mode] for mode in lora.modes}

    return Provider(lora.name, check, build, lora.obstacle)


def check_provider(lora: LoraProvider, arguments: Arguments, dropout: float) -> Parity:
    """Run one step and hold it against fp64 with the masks that it drew."""
    ready = lora.prepare(arguments)
    torch.manual_seed(SEED)
    ys = ready.forward()
    grads = torch.autograd.grad(ys, ready.wrt, arguments.dys)
    count = len(ys) if len(grads) > 1 else 0
    results = Results(ys, grads[0], grads[1 : 1 + count], grads[1 + count :])
    keeps: list[Keep | None] = [None] * len(ys)
    least_bar = 0.0
    if dropout and count:
        if lora.keeps is None:  # 1.5 times the scatter of one mask around the mean of all
            least_bar = 1.5 * (dropout / (1 - dropout)) ** 0.5
        else:
            torch.manual_seed(SEED)
            keeps = lora.keeps(arguments)
    return check_step(
        results, arguments.x_MK.detach(), arguments.members, arguments.dys, keeps, slack=lora.slack, least_bar=least_bar
    )


def calls_of(ready: Ready, arguments: Arguments) -> dict[str, Call]:
    """Return the timed calls: a step, and its two halves."""
    kept: list[tuple[Tensor, ...]] = []

    def step() -> object:
        return torch.autograd.grad(ready.forward(), ready.wrt, arguments.dys)

    def backward() -> object:
        if not kept:  # made on the stream that is timed, where its backward will run too
            kept.append(ready.forward())
        return torch.autograd.grad(kept[0], ready.wrt, arguments.dys, retain_graph=True)

    return {"step": step, "forward": ready.forward, "backward": backward}
