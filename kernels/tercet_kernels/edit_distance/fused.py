"""Edit distances on a GPU: a row of the table at a time, a few pairs in each program.

A row needs its left neighbours: d[j] = min(c[j], d[j-1] + 1), which is a running minimum of c[k] - k, plus j.
Pairs are sorted by length into buckets, the shorter sequence of each along the row.
Shapes: B pairs; a program has PAIRS of them with LENGTH columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tercet_kernels.compiling import Variant
from tercet_kernels.edit_distance.tokens import Batch


@dataclass(frozen=True)
class Rows:
    """One launch configuration: pairs a program, and the longest shorter sequence that it takes."""

    length: int
    pairs: int
    num_warps: int


CONFIGS = (Rows(32, 4, 1), Rows(128, 4, 4), Rows(512, 1, 4), Rows(1024, 1, 8))
LONGEST = CONFIGS[-1].length


def pick(shorter: int) -> Rows:
    """Choose the narrowest rows that hold `shorter` tokens."""
    return next(rows for rows in CONFIGS if shorter <= rows.length)


@triton.jit
def lesser(a, b):
    """Return the minimum of two: what the scan combines with."""
    return tl.minimum(a, b)


@triton.jit
def edit_distance_kernel(
    short_ptr, short_start_ptr, short_length_ptr, long_ptr, long_start_ptr, long_length_ptr, out_ptr, B,
    LENGTH: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Write the edit distance of PAIRS pairs; no short sequence has more than LENGTH tokens."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    inside = pair < B
    place = tl.arange(0, LENGTH)[None, :]
    short_length = tl.load(short_length_ptr + pair, mask=inside, other=0)
    long_length = tl.load(long_length_ptr + pair, mask=inside, other=0)
    short_start = tl.load(short_start_ptr + pair, mask=inside, other=0)
    long_start = tl.load(long_start_ptr + pair, mask=inside, other=0)
    is_token = inside[:, None] & (place < short_length[:, None])
    token = tl.load(short_ptr + short_start[:, None] + place, mask=is_token, other=0)

    # column c of the row is d[c + 1]; its left neighbour d[0] + 1 = step + 2 never beats the diagonal, step or step + 1
    column = tl.broadcast_to(place, (PAIRS, LENGTH))
    left = tl.maximum(column - 1, 0)
    row = column + 1
    for step in range(tl.max(long_length, axis=0)):
        is_live = step < long_length
        other = tl.load(long_ptr + long_start + step, mask=inside & is_live, other=0)
        diagonal = tl.where(column == 0, step, tl.gather(row, left, axis=1))
        cost = tl.minimum(row + 1, diagonal + (token != other[:, None]).to(tl.int32))
        next_row = tl.associative_scan(cost - column, 1, lesser) + column
        row = tl.where(is_live[:, None], next_row, row)
    last = tl.sum(tl.where(column == short_length[:, None] - 1, row, 0), axis=1)
    tl.store(out_ptr + pair, tl.where(short_length == 0, long_length, last).to(tl.int64), mask=inside)


def distances_fused(a: Batch, b: Batch, beyond: Callable[[Batch, Batch], Tensor]) -> Tensor:
    """Return the edit distance of each pair; pairs whose shorter sequence passes LONGEST go to `beyond`."""
    ids_T = torch.cat([a.flat_T.long(), b.flat_T.long()])
    starts_2B = torch.stack([a.offsets_B1[:-1], b.offsets_B1[:-1] + a.flat_T.numel()])
    lengths_2B = torch.stack([a.lengths, b.lengths])
    # the distance is symmetric, so the shorter sequence may always lie along the row
    order_2B = lengths_2B.argsort(dim=0, stable=True)
    starts_2B, lengths_2B = starts_2B.gather(0, order_2B), lengths_2B.gather(0, order_2B)
    out_B = torch.empty(lengths_2B.shape[1], dtype=torch.int64, device=ids_T.device)
    fewest = -1
    for rows in CONFIGS:
        bucket_P = ((lengths_2B[0] > fewest) & (lengths_2B[0] <= rows.length)).nonzero()[:, 0]
        if len(bucket_P):
            out_B[bucket_P] = _launch(ids_T, starts_2B[:, bucket_P], lengths_2B[:, bucket_P], rows)
        fewest = rows.length
    long_P = (lengths_2B[0] > LONGEST).nonzero()[:, 0]
    if len(long_P):
        out_B[long_P] = beyond(_chosen(a, long_P), _chosen(b, long_P))
    return out_B


def variants() -> list[Variant]:
    """List every configuration that ships."""
    lengths = {
        "short_length_ptr": "*i32",
        "long_length_ptr": "*i32",
        "short_start_ptr": "*i64",
        "long_start_ptr": "*i64",
    }
    return [
        Variant(
            name=f"{rows.length}x{rows.pairs}",
            kernel=edit_distance_kernel,
            signature={"short_ptr": "*i64", "long_ptr": "*i64", **lengths, "out_ptr": "*i64", "B": "i32"},
            constants={"LENGTH": rows.length, "PAIRS": rows.pairs},
            aligned=("short_ptr", "long_ptr", *lengths, "out_ptr"),
            num_warps=rows.num_warps,
            has_dot=False,
            wide=False,
        )
        for rows in CONFIGS
    ]


def _launch(ids_T: Tensor, starts_2P: Tensor, lengths_2P: Tensor, rows: Rows) -> Tensor:
    """Run one bucket, its pairs in order of the longer sequence: a program is as slow as its longest pair."""
    order_P = lengths_2P[1].argsort(stable=True)
    starts_2P = starts_2P[:, order_P].contiguous()
    lengths_2P = lengths_2P[:, order_P].to(torch.int32).contiguous()
    sorted_P = torch.empty(len(order_P), dtype=torch.int64, device=ids_T.device)
    edit_distance_kernel[(triton.cdiv(len(order_P), rows.pairs),)](
        ids_T, starts_2P[0], lengths_2P[0], ids_T, starts_2P[1], lengths_2P[1], sorted_P, len(order_P),
        LENGTH=rows.length, PAIRS=rows.pairs, num_warps=rows.num_warps,
    )  # fmt: skip
    return torch.empty_like(sorted_P).scatter_(0, order_P, sorted_P)


def _chosen(batch: Batch, chosen_P: Tensor) -> Batch:
    lengths = batch.lengths[chosen_P]
    parts = [batch.flat_T[start : start + length] for start, length in zip(
        batch.offsets_B1[chosen_P].tolist(), lengths.tolist(), strict=True
    )]  # fmt: skip
    return Batch(torch.cat(parts), torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))
