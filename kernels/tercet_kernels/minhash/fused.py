"""MinHash on a GPU: shingle hashes of all positions at once, minima by integer atomics, whose order changes nothing.

Documents are cut into parts (`cut_rows`), one program each; a part's minima go to its document's row by atomic_min, so
the result is the same in any order. rensa-v2 takes four launches: three rounds that touch one permutation a shingle,
and one over all permutations; after each, only documents that have permutations left over go on.
Shapes: U bytes, words or shingles, D documents, P permutations, N parts, K pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tercet_kernels.compiling import Variant
from tercet_kernels.minhash.permutations import Permutations
from tercet_kernels.minhash.reference import BUCKET_DOMAIN, FALLBACK_DOMAIN, RANK_BITS, ROUND_DOMAIN, ROUNDS
from tercet_kernels.ragged import cut_rows

# the arithmetic of a formula
SHIFT, MERSENNE, MERSENNE_LOW, RANKS = range(4)
ARITHMETIC = {
    "rensa-v1": SHIFT, "rensa-v2": RANKS, "datatrove-64": MERSENNE, "datatrove-32": MERSENNE_LOW,
    "datasketch": MERSENNE_LOW,
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One launch configuration: PART values a program, BLOCK at a time, by BLOCK_P permutations."""

    part: int
    block: int
    num_warps: int
    block_p: int = 1


# short documents leave the lanes of a large block idle; the mean length decides
HASH = (Launch(part=256, block=256, num_warps=2), Launch(part=4096, block=1024, num_warps=4))
ROUND = (Launch(part=256, block=256, num_warps=2), Launch(part=8192, block=1024, num_warps=4))
# one warp: each hash that it loads serves four permutations of a lane, 5.3 instructions a value against 13.8 of four
# warps (rensa-v1 compiled for sm_90)
LINE = (Launch(part=1024, block=32, num_warps=1, block_p=128), Launch(part=1024, block=32, num_warps=1, block_p=64))
PAIR = (Launch(part=8, block=8, num_warps=4, block_p=128),)
CONFIGS = HASH + ROUND + LINE + PAIR


def pick_by_length(launches: tuple[Launch, ...], values: int, rows: int) -> Launch:
    """Choose the small launch for documents of at most 512 values on average."""
    return launches[values > 512 * rows]


def pick_by_permutations(count: int) -> Launch:
    """Choose the launch that leaves the fewest permutations of a block idle."""
    return LINE[count <= 64]


@triton.jit
def mix(words):
    """SplitMix64, on uint64."""
    words += 0x9E3779B97F4A7C15
    words = (words ^ (words >> 30)) * 0xBF58476D1CE4E5B9
    words = (words ^ (words >> 27)) * 0x94D049BB133111EB
    return words ^ (words >> 31)


@triton.jit
def shingle_kernel(
    units_ptr, row_ptr, start_ptr, offsets_ptr, edges_ptr, out_ptr,
    LENGTH: tl.constexpr, BYTES: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Hash the shingles of one part; `start` and `edges` count shingles, `offsets` units."""
    row = tl.load(row_ptr + tl.program_id(0))
    start = tl.load(start_ptr + tl.program_id(0))
    end = tl.minimum(start + PART, tl.load(edges_ptr + row + 1))
    shift = tl.load(offsets_ptr + row) - tl.load(edges_ptr + row)
    for first in range(start, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        inside = place < end
        state = tl.full((BLOCK,), LENGTH, tl.uint64)
        if BYTES:
            for word in tl.static_range(0, LENGTH, 8):
                packed = tl.zeros((BLOCK,), tl.uint64)
                for byte in tl.static_range(8):
                    if word + byte < LENGTH:
                        unit = tl.load(units_ptr + shift + place + word + byte, mask=inside, other=0)
                        packed |= unit.to(tl.uint64) << (8 * byte)
                state = mix(state ^ packed)
        else:
            for word in tl.static_range(LENGTH):
                unit = tl.load(units_ptr + shift + place + word, mask=inside, other=0)
                state = mix(state ^ unit.to(tl.uint64, bitcast=True))
        tl.store(out_ptr + place, state.to(tl.int64, bitcast=True), mask=inside)


@triton.jit
def round_kernel(
    hashes_ptr, row_ptr, start_ptr, offsets_ptr, least_ptr, term_ptr, P, log_P,
    DOMAIN: tl.constexpr, NUMBER: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Let each shingle of one part meet the permutation that round NUMBER gives it."""
    row = tl.load(row_ptr + tl.program_id(0))
    start = tl.load(start_ptr + tl.program_id(0))
    end = tl.minimum(start + PART, tl.load(offsets_ptr + row + 1))
    seed = tl.load(term_ptr).to(tl.uint64, bitcast=True) ^ DOMAIN
    for first in range(start, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        inside = place < end
        mixed = mix(tl.load(hashes_ptr + place, mask=inside, other=0).to(tl.uint64, bitcast=True) ^ seed)
        bucket = ((mixed & 0xFFFFFFFF) >> (32 - log_P)).to(tl.int64)
        rank = (mixed >> 34).to(tl.uint32) | (NUMBER << 30)
        tl.atomic_min(least_ptr + row * P + bucket, rank, mask=inside, sem="relaxed")


@triton.jit
def line_kernel(
    hashes_ptr, row_ptr, start_ptr, offsets_ptr, least_ptr, factor_ptr, term_ptr, P,
    ARITHMETIC: tl.constexpr, DOMAIN: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Take the minima of a h + b over one part, for BLOCK_P permutations."""
    row = tl.load(row_ptr + tl.program_id(0))
    start = tl.load(start_ptr + tl.program_id(0))
    end = tl.minimum(start + PART, tl.load(offsets_ptr + row + 1))
    column = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = column < P
    factor = tl.load(factor_ptr + column, mask=inside, other=0).to(tl.uint64, bitcast=True)
    term = tl.load(term_ptr + column, mask=inside, other=0).to(tl.uint64, bitcast=True)
    seed = tl.load(factor_ptr).to(tl.uint64, bitcast=True) ^ DOMAIN
    if ARITHMETIC == 1:
        least = tl.full((BLOCK_P,), 0xFFFFFFFFFFFFFFFF, tl.uint64)
    else:
        least = tl.full((BLOCK_P,), 0xFFFFFFFF, tl.uint32)
    for first in range(start, end, BLOCK):
        # past the end the last shingle comes again: twice the same changes no minimum, and a mask would cost
        place = tl.minimum(first + tl.arange(0, BLOCK), end - 1)
        hashes = tl.load(hashes_ptr + place).to(tl.uint64, bitcast=True)
        if ARITHMETIC == 3:
            hashes = mix(hashes ^ seed)
        line = hashes[:, None] * factor[None, :] + term[None, :]
        if ARITHMETIC == 0:
            value = (line >> 32).to(tl.uint32)
        elif ARITHMETIC == 3:
            value = (line >> 34).to(tl.uint32) | (3 << 30)
        else:
            value = (line & 0x1FFFFFFFFFFFFFFF) + (line >> 61)
            value = tl.where(value >= 0x1FFFFFFFFFFFFFFF, value - 0x1FFFFFFFFFFFFFFF, value)
            if ARITHMETIC == 2:
                value = value.to(tl.uint32)
        least = tl.minimum(least, tl.min(value, axis=0))
    tl.atomic_min(least_ptr + row * P + column, least, mask=inside, sem="relaxed")


@triton.jit
def agreement_kernel(words_ptr, pairs_ptr, count_ptr, K, P, BLOCK: tl.constexpr, BLOCK_P: tl.constexpr):
    """Count the equal permutations of BLOCK pairs."""
    pair = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < K
    earlier = tl.load(pairs_ptr + 2 * pair, mask=inside, other=0) * P
    later = tl.load(pairs_ptr + 2 * pair + 1, mask=inside, other=0) * P
    count = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, P, BLOCK_P):
        column = first + tl.arange(0, BLOCK_P)
        both = inside[:, None] & (column < P)[None, :]
        one = tl.load(words_ptr + earlier[:, None] + column[None, :], mask=both, other=0)
        other = tl.load(words_ptr + later[:, None] + column[None, :], mask=both, other=0)
        count += tl.sum(((one == other) & both).to(tl.int32), axis=1)
    tl.store(count_ptr + pair, count.to(tl.int64), mask=inside)


def shingle_hashes_fused(units_U: Tensor, offsets_D1: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Hash every shingle; see `shingle_hashes_reference`."""
    counts_D = (offsets_D1.diff() - length + 1).clamp(min=0)
    edges_D1 = torch.cat([counts_D.new_zeros(1), counts_D.cumsum(0)])
    out_S = units_U.new_empty(int(edges_D1[-1]), dtype=torch.int64)
    launch = pick_by_length(HASH, len(out_S), len(counts_D))
    row_N, start_N = cut_rows(edges_D1, launch.part)
    if len(row_N):
        shingle_kernel[(len(row_N),)](
            units_U, row_N, start_N, offsets_D1, edges_D1, out_S,
            LENGTH=length, BYTES=units_U.dtype == torch.uint8, PART=launch.part, BLOCK=launch.block,
            num_warps=launch.num_warps,
        )  # fmt: skip
    return out_S, edges_D1


def signatures_fused(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations) -> Tensor:
    """Return the signatures; see `signatures_reference`."""
    permutations = permutations.to(hashes_U.device)
    shape = (len(offsets_D1) - 1, permutations.count)
    signed_dtype = torch.int64 if permutations.is_wide else torch.int32
    least_DP = torch.full(shape, -1, dtype=signed_dtype, device=hashes_U.device)
    if permutations.formula == "rensa-v2":
        _launch_rounds(hashes_U, offsets_D1, permutations, least_DP)
    _launch_lines(hashes_U, offsets_D1, permutations, least_DP)
    return least_DP.view(permutations.dtype)


def _launch_rounds(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations, least_DP: Tensor) -> None:
    launch = pick_by_length(ROUND, len(hashes_U), len(least_DP))
    row_N, start_N = cut_rows(offsets_D1, launch.part)
    for number in range(ROUNDS):
        row_N, start_N = _still_open(row_N, start_N, least_DP, number)
        if len(row_N):
            round_kernel[(len(row_N),)](
                hashes_U, row_N, start_N, offsets_D1, least_DP.view(torch.uint32), permutations.term_P,
                permutations.count, permutations.count.bit_length() - 1,
                DOMAIN=_round_domain(number), NUMBER=number, PART=launch.part, BLOCK=launch.block,
                num_warps=launch.num_warps,
            )  # fmt: skip


def _launch_lines(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations, least_DP: Tensor) -> None:
    launch = pick_by_permutations(permutations.count)
    row_N, start_N = cut_rows(offsets_D1, launch.part)
    if permutations.formula == "rensa-v2":
        row_N, start_N = _still_open(row_N, start_N, least_DP, ROUNDS)
    if len(row_N):
        line_kernel[(len(row_N), triton.cdiv(permutations.count, launch.block_p))](
            hashes_U, row_N, start_N, offsets_D1, least_DP.view(permutations.dtype), permutations.factor_P,
            permutations.term_P, permutations.count,
            ARITHMETIC=ARITHMETIC[permutations.formula], DOMAIN=FALLBACK_DOMAIN,
            PART=launch.part, BLOCK=launch.block, BLOCK_P=launch.block_p, num_warps=launch.num_warps,
        )  # fmt: skip


def _still_open(row_N: Tensor, start_N: Tensor, least_DP: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Keep the parts of documents of which a permutation met no shingle in the rounds before `number`.

    A rank's top two bits are its round: whatever a later round brings is larger than what an earlier one left.
    """
    is_open_D = ((least_DP >> RANK_BITS & 3) >= number).any(1)
    is_open_N = is_open_D[row_N]
    return row_N[is_open_N], start_N[is_open_N]


def agreement_fused(signatures_DP: Tensor, pairs_K2: Tensor) -> Tensor:
    """Count the equal permutations of each pair; see `agreement`."""
    count_K = torch.empty(len(pairs_K2), dtype=torch.int64, device=pairs_K2.device)
    (launch,) = PAIR
    if len(pairs_K2):
        agreement_kernel[(triton.cdiv(len(pairs_K2), launch.block),)](
            signatures_DP.contiguous(), pairs_K2.contiguous(), count_K, len(pairs_K2), signatures_DP.shape[1],
            BLOCK=launch.block, BLOCK_P=launch.block_p, num_warps=launch.num_warps,
        )  # fmt: skip
    return count_K


def _round_domain(number: int) -> int:
    return BUCKET_DOMAIN ^ (number * ROUND_DOMAIN & 0xFFFFFFFFFFFFFFFF)


def variants() -> list[Variant]:
    """List every shipped configuration; ragged rows begin anywhere, so no load is 128 bits wide by promise."""
    return [
        *(_hash_variant(launch, bytes_=bytes_) for launch in HASH for bytes_ in (True, False)),
        *(_round_variant(launch, number) for launch in ROUND for number in range(ROUNDS)),
        *(_line_variant(launch, arithmetic) for launch in LINE for arithmetic in range(4)),
        *(_pair_variant(PAIR[0], dtype) for dtype in ("u32", "u64")),
    ]


def _hash_variant(launch: Launch, *, bytes_: bool) -> Variant:
    unit = "u8" if bytes_ else "i64"
    pointers = ("row_ptr", "start_ptr", "offsets_ptr", "edges_ptr", "out_ptr")
    return Variant(
        name=f"shingle_hashes-{unit}-{launch.block}",
        kernel=shingle_kernel,
        signature={"units_ptr": f"*{unit}", **dict.fromkeys(pointers, "*i64")},
        constants={"LENGTH": 5, "BYTES": bytes_, "PART": launch.part, "BLOCK": launch.block},
        aligned=("units_ptr", *pointers),
        num_warps=launch.num_warps,
        has_dot=False,
        wide=False,
    )


def _round_variant(launch: Launch, number: int) -> Variant:
    pointers = ("hashes_ptr", "row_ptr", "start_ptr", "offsets_ptr", "term_ptr")
    return Variant(
        name=f"minhash-round{number}-{launch.block}",
        kernel=round_kernel,
        signature={**dict.fromkeys(pointers, "*i64"), "least_ptr": "*u32", "P": "i32", "log_P": "i32"},
        constants={"DOMAIN": _round_domain(number), "NUMBER": number, "PART": launch.part, "BLOCK": launch.block},
        aligned=(*pointers, "least_ptr", "P"),
        num_warps=launch.num_warps,
        has_dot=False,
        wide=False,
    )


def _line_variant(launch: Launch, arithmetic: int) -> Variant:
    pointers = ("hashes_ptr", "row_ptr", "start_ptr", "offsets_ptr", "factor_ptr", "term_ptr")
    return Variant(
        name=f"minhash-line{arithmetic}-{launch.block}x{launch.block_p}",
        kernel=line_kernel,
        signature={
            **dict.fromkeys(pointers, "*i64"),
            "least_ptr": "*u64" if arithmetic == MERSENNE else "*u32",
            "P": "i32",
        },
        constants={
            "ARITHMETIC": arithmetic, "DOMAIN": FALLBACK_DOMAIN, "PART": launch.part, "BLOCK": launch.block,
            "BLOCK_P": launch.block_p,
        },
        aligned=(*pointers, "least_ptr", "P"),
        num_warps=launch.num_warps,
        has_dot=False,
        wide=False,
    )  # fmt: skip


def _pair_variant(launch: Launch, dtype: str) -> Variant:
    return Variant(
        name=f"minhash-agreement-{dtype}",
        kernel=agreement_kernel,
        signature={"words_ptr": f"*{dtype}", "pairs_ptr": "*i64", "count_ptr": "*i64", "K": "i32", "P": "i32"},
        constants={"BLOCK": launch.block, "BLOCK_P": launch.block_p},
        aligned=("words_ptr", "pairs_ptr", "count_ptr", "P"),
        num_warps=launch.num_warps,
        has_dot=False,
        wide=False,
    )
