"""How fast K2's base product is against cuBLAS: the number that `lora.launch.EFFICIENCY` assumes (kernels.md A3.3).

K2 pays off where its efficiency passes 1 - balance / K. A case here is one forward product with the small term beside
it: cuBLAS without the term (the baseline), K2 with it, and K2b with cuBLAS accumulating onto it.
Shapes: M rows, K inputs, N outputs, R rank padded to P columns of s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from tercet_kernels.bench.entries import Call, Case, Parity, Provider, Traffic, triton_obstacle
from tercet_kernels.bench.lora_cases import LoraShape, make_arguments
from tercet_kernels.bench.lora_providers import up_forced
from tercet_kernels.bench.parity import BARS, spread_rows, worst_of
from tercet_kernels.lora import Member
from tercet_kernels.lora.tiles import padded_rank

OPERATOR = "lora_gemm"


@dataclass(frozen=True)
class Product:
    """x (M, K), s (M, P) and the one member that multiplies them."""

    x_MK: Tensor
    s_MP: Tensor
    member: Member


def gemm_case(shape: LoraShape, rank: int, dtype: torch.dtype, device: torch.device) -> Case:
    """Return the case of a shape with one output."""
    obstacle = triton_obstacle(device)
    size, (outputs,) = dtype.itemsize, shape.outputs
    moved = size * (shape.rows * (shape.inputs + outputs) + shape.inputs * outputs)
    passes = {"cublas": 0, "k2": 0, "k2b_cublas": 1}  # over y, beyond the product's own
    return Case(
        operator=OPERATOR,
        shape=shape.name,
        m=shape.rows,
        k=shape.inputs,
        n=str(outputs),
        dtype=dtype,
        rank=rank,
        arguments=functools.partial(make_product, shape, rank, dtype),
        providers=(
            _provider("cublas", lambda product: linear(product.x_MK, product.member.weight_NK), with_term=False),
            _provider("k2", functools.partial(_up, fused=True), obstacle=obstacle),
            _provider("k2b_cublas", functools.partial(_up, fused=False), obstacle=obstacle),
        ),
        baseline="cublas",
        traffic=lambda provider, _mode: Traffic(
            moved + passes[provider] * size * shape.rows * outputs, passes[provider] * size * shape.rows * outputs
        ),
        flops={"forward": 2.0 * shape.rows * shape.inputs * outputs},
        argument_bytes=size * (shape.rows * shape.inputs + shape.inputs * outputs),
    )


def make_product(shape: LoraShape, rank: int, dtype: torch.dtype, device: torch.device, seed: int) -> Product:
    """Draw x, s and the member; s is zero in its padding, as K1 leaves it."""
    arguments = make_arguments(shape, rank, 0.0, dtype, device, seed)
    (member,) = arguments.members
    member = Member(member.weight_NK, None, member.a_RK.detach(), member.b_NR.detach(), member.scaling)
    x_MK = arguments.x_MK.detach()
    s_MP = x_MK.new_zeros(shape.rows, padded_rank(rank))
    s_MP[:, :rank] = x_MK @ member.a_RK.to(dtype).T
    return Product(x_MK, s_MP, member)


def measured(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read the efficiency of K2 out of a run's rows: cuBLAS's time over K2's, on the device's own clock."""
    keys = ("shape", "m", "k", "n", "rank", "dtype")
    return [
        {key: row[key] for key in keys} | {"efficiency": 1 / row["ratio"]}
        for row in rows
        if row["op"] == OPERATOR and row["provider"] == "k2" and row["graphs"] == "yes" and row["ratio"]
    ]


def _up(product: Product, *, fused: bool) -> Tensor:
    from tercet_kernels.lora import launch

    with up_forced(fused=fused):
        return launch.up(product.x_MK, product.s_MP, product.member)


def _provider(name: str, run: Callable[[Product], Tensor], *, with_term: bool = True, obstacle: str = "") -> Provider:
    def check(product: Product) -> Parity:
        rows_T = spread_rows(product.x_MK.shape[0], product.x_MK.device)
        y_TN = product.x_MK[rows_T].double() @ product.member.weight_NK.double().T
        if with_term:
            b_NR = product.member.b_NR.to(product.x_MK.dtype).double()
            y_TN += product.s_MP[rows_T, : product.member.rank].double() @ b_NR.T
        return worst_of(run(product), y_TN, BARS[product.x_MK.dtype][0], "y", rows_T)

    def build(product: Product) -> Mapping[str, Call]:
        return {"forward": lambda: run(product)}

    return Provider(name, check, build, obstacle)


def gemm_cases(shapes: Sequence[LoraShape], dtype: torch.dtype, device: torch.device) -> list[Case]:
    """Return a case of rank 16 for each shape with one output."""
    return [gemm_case(shape, 16, dtype, device) for shape in shapes if len(shape.outputs) == 1]
