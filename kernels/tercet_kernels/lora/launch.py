"""Give the LoRA kernels shapes and memory: the four steps on a GPU.

Shapes: M rows, K inputs, N outputs, R rank, padded to P in s and ds; G members share x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tercet_kernels.lora import fused, tiles
from tercet_kernels.lora.member import Member, Steps
from tercet_kernels.philox import quantise

PROCESSORS_WITHOUT_GPU = 4  # the interpreter; enough to make several strips


def down(
    x_MK: Tensor, members: Sequence[Member], seed: Tensor | None, tile: tiles.Tile | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Run K1: s = factor (mask x) A^T, each (M, P); nothing is kept of the masks but the seed, which the caller has."""
    x_MK = _row_major(x_MK)
    padded = _padded(members)
    small: list[Tensor] = []
    for start, some in _launches(members, padded, x_MK.element_size()):
        s_MW = x_MK.new_empty(x_MK.shape[0], len(some) * padded)
        cut = tile or tiles.down_tile(x_MK.shape[0], s_MW.shape[1], x_MK.element_size())
        factors = [_row_major(member.a_RK) for member in some]
        fused.lora_down[(_blocks(x_MK.shape[0], cut.rows),)](
            x_MK, *_three(factors), s_MW, _seed(seed, x_MK), *x_MK.shape, x_MK.stride(0),
            *_three([a_RK.stride(0) for a_RK in factors]),
            *_three([member.rank for member in some]),
            *_three([member.factor for member in some]),
            *_three([quantise(member.dropout) for member in some]),
            start,
            G=len(some), RP=padded, DROP=_drops(some), BM=cut.rows, BK=cut.columns, PRECISION=precision(x_MK),
            num_warps=cut.num_warps, num_stages=cut.num_stages,
        )  # fmt: skip
        small += torch.split(s_MW, padded, dim=1)
    return small, [x_MK.new_empty(0, dtype=torch.uint8) for _ in members]


def up(x_MK: Tensor, s_MP: Tensor, member: Member, tile: tiles.Tile | None = None) -> Tensor:
    """Return y: the small term first (K2b), then the base GEMM accumulates onto it; or both at once (K2)."""
    if prefers_fused_gemm(x_MK):
        return up_fused(x_MK, s_MP, member)
    num_rows, outputs = x_MK.shape[0], member.weight_NK.shape[0]
    y_MN = x_MK.new_empty(num_rows, outputs)
    b_NR = _row_major(member.b_NR)
    cut = tile or tiles.up_tile()
    fused.lora_up_init[(_blocks(num_rows, cut.rows), _blocks(outputs, cut.columns))](
        s_MP, b_NR, _or(member.bias_N, y_MN), y_MN, num_rows, outputs, member.rank, s_MP.stride(0), b_NR.stride(0),
        y_MN.stride(0),
        HAS_BIAS=member.bias_N is not None, RP=_padded([member], s_MP), BM=cut.rows, BN=cut.columns,
        PRECISION=precision(x_MK), num_warps=cut.num_warps, num_stages=cut.num_stages,
    )  # fmt: skip
    return torch.addmm(y_MN, x_MK, member.weight_NK.T, out=y_MN)


def up_fused(x_MK: Tensor, s_MP: Tensor, member: Member, tile: tiles.Tile | None = None) -> Tensor:
    """Run K2: y = x W^T + s B^T + bias in one kernel."""
    x_MK, weight_NK, b_NR = _row_major(x_MK), _row_major(member.weight_NK), _row_major(member.b_NR)
    (num_rows, inputs), outputs = x_MK.shape, weight_NK.shape[0]
    y_MN = x_MK.new_empty(num_rows, outputs)
    cut = tile or tiles.gemm_tile(capability(x_MK), s_MP.shape[1], x_MK.element_size())
    fused.lora_gemm[(_blocks(num_rows, cut.rows) * _blocks(outputs, cut.columns),)](
        x_MK, weight_NK, s_MP, b_NR, _or(member.bias_N, y_MN), y_MN, num_rows, outputs, inputs, member.rank,
        x_MK.stride(0), weight_NK.stride(0), s_MP.stride(0), b_NR.stride(0), y_MN.stride(0),
        HAS_BIAS=member.bias_N is not None, RP=_padded([member], s_MP), BM=cut.rows, BN=cut.columns, BK=cut.depth,
        GROUP=8, EVEN_K=inputs % cut.depth == 0, PRECISION=precision(x_MK),
        num_warps=cut.num_warps, num_stages=cut.num_stages,
    )  # fmt: skip
    return y_MN


def backward_up(
    dy_MN: Tensor,
    s_MP: Tensor | None,
    member: Member,
    *,
    wants_b: bool,
    tile: tiles.Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run K3 and K6: ds = factor dY B in dY's dtype, (M, P); dB = dY^T s in B's own dtype."""
    (num_rows, outputs), padded = dy_MN.shape, tiles.padded_rank(member.rank) if s_MP is None else s_MP.shape[1]
    b_NR = _row_major(member.b_NR)
    cut = tile or tiles.bwd_s_tile(padded, dy_MN.element_size())
    num_blocks = _blocks(outputs, cut.columns)
    num_strips, strip = tiles.strips(num_rows, num_blocks, cut.rows, processors(dy_MN))
    ds_BMP = dy_MN.new_empty(num_blocks, num_rows, padded, dtype=torch.float32)
    db_SNP = dy_MN.new_empty(num_strips if wants_b else 0, outputs, padded, dtype=torch.float32)
    fused.lora_bwd_s[(num_blocks, num_strips)](
        dy_MN, b_NR, _or(s_MP, dy_MN), ds_BMP, db_SNP, num_rows, outputs, member.rank, dy_MN.stride(0),
        b_NR.stride(0), 0 if s_MP is None else s_MP.stride(0), strip,
        WANTS_B=wants_b, RP=padded, BM=cut.rows, BN=cut.columns, PRECISION=precision(dy_MN),
        num_warps=cut.num_warps, num_stages=cut.num_stages,
    )  # fmt: skip
    ds_MP = reduce(ds_BMP, dy_MN.new_empty(num_rows, padded), member.factor)
    return ds_MP, reduce(db_SNP, torch.empty_like(b_NR)) if wants_b else None


def backward_down(
    x_MK: Tensor | None,
    ds: Sequence[Tensor],
    members: Sequence[Member],
    masks: Sequence[Tensor],  # noqa: ARG001  made again from the seed
    seed: Tensor | None,
    *,
    wants_x: bool,
    indices: Sequence[int],
    tile: tiles.Tile | None = None,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Run K4b and K6: the LoRA share of dX in ds's dtype, and each dA = ds^T (mask x) in A's own dtype."""
    x_MK = None if x_MK is None else _row_major(x_MK)
    dx_MK: Tensor | None = None
    das: list[Tensor | None] = []
    # where no s came along, each ds is as wide as its own rank asks: then each goes alone
    width = ds[0].shape[1] if len({ds_MP.shape[1] for ds_MP in ds}) == 1 else tiles.WIDEST_GROUP
    for start, some in _launches(members, width, ds[0].element_size()):
        stop = start + len(some)
        share, grads = _backward_down_once(x_MK, ds[start:stop], some, seed, wants_x, indices[start:stop], tile)
        das += grads
        if share is not None:
            dx_MK = share if dx_MK is None else dx_MK.add_(share)
    return dx_MK, das


def _backward_down_once(
    x_MK: Tensor | None,
    ds: Sequence[Tensor],
    some: Sequence[Member],
    seed: Tensor | None,
    wants_x: bool,  # noqa: FBT001
    indices: Sequence[int],
    tile: tiles.Tile | None,
) -> tuple[Tensor | None, list[Tensor | None]]:
    padded, count = ds[0].shape[1], len(some)
    ds_MW = torch.cat(list(ds), dim=1) if count > 1 else ds[0]
    num_rows, inputs = ds_MW.shape[0], some[0].a_RK.shape[1]
    cut = tile or tiles.bwd_xa_tile(ds_MW.element_size())
    num_blocks = _blocks(inputs, cut.columns)
    num_strips, strip = tiles.strips(num_rows, num_blocks, cut.rows, processors(ds_MW))
    wants_a = x_MK is not None
    dx_MK = ds_MW.new_empty(num_rows, inputs) if wants_x else None
    da_SGPK = ds_MW.new_empty(num_strips if wants_a else 0, count, padded, inputs, dtype=torch.float32)
    factors = [_row_major(member.a_RK) for member in some]
    fused.lora_bwd_xa[(num_blocks, num_strips)](
        _or(x_MK, ds_MW), ds_MW, *_three(factors), _or(dx_MK, ds_MW), da_SGPK, _seed(seed, ds_MW), num_rows, inputs,
        0 if x_MK is None else x_MK.stride(0), *_three([a_RK.stride(0) for a_RK in factors]),
        *_three([member.rank for member in some]),
        *_three([quantise(member.dropout) for member in some]),
        *_three(list(indices)),
        strip,
        G=count, RP=padded, DROP=_drops(some), WANTS_A=wants_a, WANTS_X=wants_x, BM=cut.rows, BK=cut.columns,
        PRECISION=precision(ds_MW), num_warps=cut.num_warps, num_stages=cut.num_stages,
    )  # fmt: skip
    if not wants_a:
        return dx_MK, [None] * count
    return dx_MK, [reduce(da_SGPK[:, g], torch.empty_like(a_RK)) for g, a_RK in enumerate(factors)]


def reduce(part: Tensor, out: Tensor, factor: float = 1.0, tile: tiles.Tile | None = None) -> Tensor:
    """Run K6: out (rows, columns) = factor * sum of part (count, at least rows, at least columns)."""
    rows, columns = out.shape
    cut = tile or tiles.reduce_tile()
    fused.reduce_partials[(_blocks(rows * columns, cut.columns),)](
        part, out, part.shape[0], part.stride(0), rows, columns, part.stride(1), out.stride(0), factor,
        BLOCK=cut.columns, num_warps=cut.num_warps,
    )  # fmt: skip
    return out


def prefers_fused_gemm(x_MK: Tensor) -> bool:
    """Tell whether K2 beats cuBLAS with a small term written first: where its efficiency passes 1 - balance / K (A3.3).

    EFFICIENCY is assumed until a GPU has measured it.
    """
    balance = BALANCE.get(capability(x_MK) or (0, 0))
    return balance is not None and x_MK.element_size() == 2 and 1 - balance / x_MK.shape[1] <= EFFICIENCY


EFFICIENCY = 0.80  # of the pointer GEMM against cuBLAS; an assumption
# FLOP per byte at which a GPU's tensor cores and its memory take equally long: 250 TFLOP/s over 1.75 TB/s for an A100,
# 700 over 3.0 for an H100
BALANCE = {(8, 0): 143, (9, 0): 233}


def precision(x: Tensor) -> str:
    """Return how fp32 products are made: exactly, unless torch's own switch allows TF32."""
    return "tf32" if x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def capability(x: Tensor) -> tuple[int, int] | None:
    """Return the CUDA capability of x's GPU; None on HIP and in the interpreter."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda and torch.version.hip is None else None


def processors(x: Tensor) -> int:
    """Return how many multiprocessors x's GPU has."""
    if not x.is_cuda:
        return PROCESSORS_WITHOUT_GPU
    return torch.cuda.get_device_properties(x.device).multi_processor_count


def _launches(members: Sequence[Member], padded: int, element_bytes: int) -> Iterator[tuple[int, Sequence[Member]]]:
    together = tiles.members_together(len(members), padded, element_bytes)
    for start in range(0, len(members), together):
        yield start, members[start : start + together]


def _padded(members: Sequence[Member], s_MP: Tensor | None = None) -> int:
    return max(tiles.padded_rank(member.rank) for member in members) if s_MP is None else s_MP.shape[1]


def _drops(members: Sequence[Member]) -> bool:
    return any(member.dropout for member in members)


def _seed(seed: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros(1, dtype=torch.int64, device=like.device) if seed is None else seed


def _three(values: list) -> list:  # type: ignore[type-arg]
    """Fill up to three members; the kernel doesn't read what it wasn't asked for."""
    return values + [values[0]] * (tiles.MOST_MEMBERS - len(values))


def _row_major(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()


def _or(matrix: Tensor | None, instead: Tensor) -> Tensor:
    """Return a pointer to pass where the kernel reads none."""
    return instead if matrix is None else matrix


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


STEPS = Steps(down, up, backward_up, backward_down)
