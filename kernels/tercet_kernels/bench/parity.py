"""Hold a LoRA provider's results against fp64, before any time is taken.

The gradients of A and B are computed whole, in chunks of rows; y and dX, whose base products would take longer than
the benchmark, on rows spread over the batch. Every element must be finite.
Shapes: M rows (C in a chunk, T tested), K inputs, N outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet_kernels.bench.entries import Parity
from tercet_kernels.lora.member import Member

ROWS_AT_ONCE = 2048
ROWS_TESTED = 512
# relative Frobenius error against fp64 of the same rounded inputs (kernels.md A5.10): y and dX, then dA and dB
BARS = {
    torch.float32: (1e-6, 2e-6),
    torch.float16: (6e-4, 6e-4),
    torch.bfloat16: (4e-3, 4e-3),
}


@dataclass(frozen=True)
class Keep:
    """A dropout mask (M, K), and the factor that what it keeps is multiplied by."""

    mask_MK: Tensor
    factor: float


@dataclass(frozen=True)
class Results:
    """What a step returned for a group: y of each member, dX, and dA and dB of each (none from a frozen linear)."""

    ys: Sequence[Tensor]
    dx_MK: Tensor
    das: Sequence[Tensor] = ()
    dbs: Sequence[Tensor] = ()


def check_step(
    results: Results,
    x_MK: Tensor,
    members: Sequence[Member],
    dys: Sequence[Tensor],
    keeps: Sequence[Keep | None],
    *,
    slack: float = 1.0,
    least_bar: float = 0.0,
) -> Parity:
    """Compare a step with fp64; return the result that comes closest to its bar, or lies furthest above it.

    `slack` widens the bars, for an order of operations that rounds more often; `least_bar` is a floor under them.
    """
    bar_y, bar_grad = (max(slack * bar, least_bar) for bar in BARS[x_MK.dtype])
    tested_T = spread_rows(x_MK.shape[0], x_MK.device)
    with_adapter = bool(results.das)
    found: list[Parity] = []
    dx_TK = torch.zeros(len(tested_T), x_MK.shape[1], dtype=torch.float64, device=x_MK.device)
    for index, (member, dy_MN, keep) in enumerate(zip(members, dys, keeps, strict=True)):
        exact = exact_member(x_MK, member, dy_MN, keep, tested_T, with_adapter=with_adapter)
        dx_TK += exact.dx_TK
        found.append(worst_of(results.ys[index], exact.y_TN, bar_y, f"y{index}", tested_T))
        if with_adapter:
            found.append(worst_of(results.das[index], exact.da_RK, bar_grad, f"dA{index}"))
            found.append(worst_of(results.dbs[index], exact.db_NR, bar_grad, f"dB{index}"))
    # dX is rounded again each time that a member adds its share: independent roundings add as squares
    found.append(worst_of(results.dx_MK, dx_TK, bar_y * len(members) ** 0.5, "dX", tested_T))
    return worst(found)


@dataclass(frozen=True)
class Exact:
    """One member's results in fp64, y and dX on the tested rows."""

    y_TN: Tensor
    dx_TK: Tensor
    da_RK: Tensor
    db_NR: Tensor


def exact_member(
    x_MK: Tensor, member: Member, dy_MN: Tensor, keep: Keep | None, tested_T: Tensor, *, with_adapter: bool
) -> Exact:
    """Compute one member in fp64 from factors rounded to x's dtype, as every path rounds them."""
    a_RK, b_NR = (factor.detach().to(x_MK.dtype).double() for factor in (member.a_RK, member.b_NR))
    weight_NK = member.weight_NK.double()
    y_TN = x_MK[tested_T].double() @ weight_NK.T
    dx_TK = dy_MN[tested_T].double() @ weight_NK
    if member.bias_N is not None:
        y_TN += member.bias_N.double()
    da_RK, db_NR = torch.zeros_like(a_RK), torch.zeros_like(b_NR)
    if not with_adapter:
        return Exact(y_TN, dx_TK, da_RK, db_NR)
    for start in range(0, x_MK.shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        dropped_CK = _dropped(x_MK, keep, rows)
        ds_CR = member.scaling * (dy_MN[rows].double() @ b_NR)
        da_RK += ds_CR.T @ dropped_CK
        db_NR += member.scaling * (dy_MN[rows].double().T @ (dropped_CK @ a_RK.T))
    y_TN += member.scaling * (_dropped(x_MK, keep, tested_T) @ a_RK.T) @ b_NR.T
    share_TK = member.scaling * (dy_MN[tested_T].double() @ b_NR) @ a_RK
    dx_TK += share_TK if keep is None else share_TK * keep.mask_MK[tested_T] * keep.factor
    return Exact(y_TN, dx_TK, da_RK, db_NR)


def spread_rows(num_rows: int, device: torch.device, most: int = ROWS_TESTED) -> Tensor:
    """Return up to `most` row numbers from the first to the last."""
    return torch.linspace(0, num_rows - 1, min(num_rows, most), dtype=torch.float64, device=device).round().long()


def worst_of(got: Tensor, right: Tensor, bar: float, what: str, rows: Tensor | None = None) -> Parity:
    """Return the relative Frobenius error of `got`, on `rows` of it; NaN where any element isn't finite."""
    got = got.detach()
    if not bool(torch.isfinite(got).all()):
        return Parity(float("nan"), bar, what)
    some = got if rows is None else got[rows]
    return Parity(float((some.double() - right).norm() / right.norm().clamp_min(1e-300)), bar, what)


def worst(found: Sequence[Parity]) -> Parity:
    """Return the parity nearest to its bar or furthest above; NaN is the worst of all."""
    return max(found, key=lambda parity: float("inf") if parity.error != parity.error else parity.error / parity.bar)


def _dropped(x_MK: Tensor, keep: Keep | None, rows: slice | Tensor) -> Tensor:
    x_CK = x_MK[rows].double()
    return x_CK if keep is None else x_CK * keep.mask_MK[rows] * keep.factor
