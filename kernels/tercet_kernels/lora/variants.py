"""Every configuration of the LoRA kernels that ships, for the ahead-of-time compiler.

The tiles come from the functions that a launch asks, so what is proven is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tercet_kernels.compiling import TARGETS, Variant
from tercet_kernels.lora import fused, tiles
from tercet_kernels.lora.paths import MAX_FUSED_RANK

BYTES = {"bf16": 2, "fp32": 4}
MANY_ROWS = 8192
WIDE_TARGETS = ("sm_90", "sm_100")
CUDA = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}


def variants() -> list[Variant]:
    """List them: bf16 with fp32 factors, as PEFT keeps them, and fp32."""
    return [*_down(), *_up_init(), *_gemm(), *_bwd_s(), *_bwd_xa(), *_reduce()]


def _down() -> list[Variant]:
    found = []
    for dtype, group, padded, drop in (
        ("bf16", 1, 16, True), ("bf16", 1, 16, False), ("bf16", 2, 16, True), ("bf16", 3, 16, True),
        ("bf16", 3, 16, False), ("bf16", 1, 32, True), ("bf16", 2, 32, True), ("bf16", 1, 64, True),
        ("bf16", 1, 128, True), ("fp32", 1, 16, True),
    ):  # fmt: skip
        tile = tiles.down_tile(MANY_ROWS, group * padded, BYTES[dtype])
        signature = {
            "x_ptr": f"*{dtype}", **_each("a{}_ptr", "*fp32"), "s_ptr": f"*{dtype}", "seed_ptr": "*i64",
            **_all("i32", "M", "K", "stride_x"), **_each("stride_a{}", "i32"), **_each("rank{}", "i32"),
            **_each("factor{}", "fp32"), **_each("drop{}", "i32"), "FIRST": "i32",
        }  # fmt: skip
        found.append(
            Variant(
                f"down {dtype} G{group} P{padded}{' drop' * drop}",
                fused.lora_down,
                signature,
                {
                    "G": group, "RP": padded, "DROP": drop, "BM": tile.rows, "BK": tile.columns,
                    "PRECISION": "ieee",
                },
                aligned=_aligned(signature, "K", "stride_x", "stride_a0", "stride_a1", "stride_a2"),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                has_dot=dtype != "fp32",  # exact fp32 products run on the ordinary units
                targets=_targets(padded),
            )
        )  # fmt: skip
    return found


def _up_init() -> list[Variant]:
    tile = tiles.up_tile()
    signature = {
        "s_ptr": "*bf16", "b_ptr": "*fp32", "bias_ptr": "*bf16", "y_ptr": "*bf16",
        **_all("i32", "M", "N", "rank", "stride_s", "stride_b", "stride_y"),
    }  # fmt: skip
    return [
        Variant(
            f"up_init bf16 P{padded}",
            fused.lora_up_init,
            signature,
            {"HAS_BIAS": True, "RP": padded, "BM": tile.rows, "BN": tile.columns, "PRECISION": "ieee"},
            aligned=_aligned(signature, "N", "stride_s", "stride_b", "stride_y"),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            wide=False,  # it reads the small operands alone, whose rows are 16-64 elements; its stores are wide
            targets=_targets(padded),
        )
        for padded in (16, 32, 64, 128)
    ]


def _gemm() -> list[Variant]:
    signature = {
        "x_ptr": "*bf16", "w_ptr": "*bf16", "s_ptr": "*bf16", "b_ptr": "*fp32", "bias_ptr": "*bf16", "y_ptr": "*bf16",
        **_all("i32", "M", "N", "K", "rank", "stride_x", "stride_w", "stride_s", "stride_b", "stride_y"),
    }  # fmt: skip
    found = []
    for target, capability in (*CUDA.items(), ("gfx942", None)):
        for padded in (16, 64, 128):
            if target not in _targets(padded):
                continue
            tile = tiles.gemm_tile(capability, padded, 2)
            found.append(
                Variant(
                    f"gemm bf16 {tile.rows}x{tile.columns} {target} P{padded}",
                    fused.lora_gemm,
                    signature,
                    {
                        "HAS_BIAS": True, "RP": padded, "BM": tile.rows, "BN": tile.columns, "BK": tile.depth,
                        "GROUP": 8, "EVEN_K": True, "PRECISION": "ieee",
                    },
                    aligned=_aligned(signature, "N", "K", "stride_x", "stride_w", "stride_s", "stride_b", "stride_y"),
                    num_warps=tile.num_warps,
                    num_stages=tile.num_stages,
                    targets=(target,),
                )
            )  # fmt: skip
    return found


def _bwd_s() -> list[Variant]:
    found = []
    for dtype, padded, wants_b in (
        ("bf16", 16, True), ("bf16", 16, False), ("bf16", 32, True), ("bf16", 64, True), ("bf16", 128, True),
        ("fp32", 16, True),
    ):  # fmt: skip
        tile = tiles.bwd_s_tile(padded, BYTES[dtype])
        signature = {
            "dy_ptr": f"*{dtype}", "b_ptr": "*fp32", "s_ptr": f"*{dtype}", "ds_ptr": "*fp32", "db_ptr": "*fp32",
            **_all("i32", "M", "N", "rank", "stride_dy", "stride_b", "stride_s", "strip"),
        }  # fmt: skip
        found.append(
            Variant(
                f"bwd_s {dtype} P{padded}{' dB' * wants_b}",
                fused.lora_bwd_s,
                signature,
                {"WANTS_B": wants_b, "RP": padded, "BM": tile.rows, "BN": tile.columns, "PRECISION": "ieee"},
                aligned=_aligned(signature, "N", "stride_dy", "stride_b", "stride_s", "strip"),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                has_dot=dtype != "fp32",
                targets=_targets(padded),
            )
        )
    return found


def _bwd_xa() -> list[Variant]:
    found = []
    for dtype, group, padded, drop in (
        ("bf16", 1, 16, True), ("bf16", 1, 16, False), ("bf16", 2, 16, True), ("bf16", 3, 16, True),
        ("bf16", 1, 32, True), ("bf16", 2, 32, True), ("bf16", 1, 64, True), ("bf16", 1, 128, True),
        ("fp32", 1, 16, True),
    ):  # fmt: skip
        tile = tiles.bwd_xa_tile(BYTES[dtype])
        signature = {
            "x_ptr": f"*{dtype}", "ds_ptr": f"*{dtype}", **_each("a{}_ptr", "*fp32"), "dx_ptr": f"*{dtype}",
            "da_ptr": "*fp32", "seed_ptr": "*i64", **_all("i32", "M", "K", "stride_x"), **_each("stride_a{}", "i32"),
            **_each("rank{}", "i32"), **_each("drop{}", "i32"), **_each("member{}", "i32"), "strip": "i32",
        }  # fmt: skip
        found.append(
            Variant(
                f"bwd_xa {dtype} G{group} P{padded}{' drop' * drop}",
                fused.lora_bwd_xa,
                signature,
                {
                    "G": group, "RP": padded, "DROP": drop, "WANTS_A": True, "WANTS_X": True, "BM": tile.rows,
                    "BK": tile.columns, "PRECISION": "ieee",
                },
                aligned=_aligned(signature, "K", "stride_x", "stride_a0", "stride_a1", "stride_a2", "strip"),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                has_dot=dtype != "fp32",
                targets=_targets(padded),
            )
        )  # fmt: skip
    return found


def _reduce() -> list[Variant]:
    tile = tiles.reduce_tile()
    signature = {
        "part_ptr": "*fp32", "out_ptr": "*fp32",
        **_all("i32", "count", "plane", "rows", "columns", "stride_part", "stride_out"), "factor": "fp32",
    }  # fmt: skip
    return [
        Variant(
            f"reduce {dtype}",
            fused.reduce_partials,
            signature | {"out_ptr": f"*{dtype}"},
            {"BLOCK": tile.columns},
            aligned=_aligned(signature, "plane", "columns", "stride_part", "stride_out"),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            has_dot=False,
        )
        for dtype in ("fp32", "bf16")
    ]


def _targets(padded: int) -> tuple[str, ...]:
    """Return where a rank runs in Triton: high ones need sm_90's shared memory and registers, elsewhere torch runs."""
    return TARGETS if padded <= MAX_FUSED_RANK else WIDE_TARGETS


def _each(name: str, kind: str) -> dict[str, str]:
    return {name.format(member): kind for member in range(tiles.MOST_MEMBERS)}


def _all(kind: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, kind)


def _aligned(signature: Mapping[str, str], *sizes: str) -> tuple[str, ...]:
    """Return the pointers, which torch aligns, and the sizes that ordinary shapes make a multiple of 16."""
    return (*(name for name in signature if name.endswith("_ptr")), *sizes)
