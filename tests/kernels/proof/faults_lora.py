"""Faults of the LoRA kernels."""

from __future__ import annotations

from tests.kernels.proof.planting import Fault

FUSED, TILES = "lora/fused.py", "lora/tiles.py"
DEVICE = "tests/kernels/device/test_lora_device.py::test_every_launch_is_near_the_definition"
RAGGED = f"{DEVICE}[33-47-35-5-0.0-torch.float32]"
DROPPED = f"{DEVICE}[33-47-35-5-0.3-torch.float32]"
INTERPRETED = "tests/kernels/test_lora_fused.py::"
SMALL_PROGRAMS = f"{INTERPRETED}test_many_small_programs_agree_with_one"
STRIP = f"{INTERPRETED}test_the_row_blocks_of_one_strip_add_up"
LONG_SUM = "tests/kernels/device/test_lora_device.py::test_sums_over_k_are_kept_in_fp32"
PARTIALS = f"{INTERPRETED}test_partials_are_summed_over_padding_and_planes"
MASK = f"{INTERPRETED}test_the_kernel_s_mask_equals_the_definition_bit_for_bit"


def fault(kernel: str, kind: str, what: str, old: str, new: str, *proofs: str, short: bool = False) -> Fault:
    """Give a fault in the kernels' file."""
    return Fault(f"lora.{kernel}", kind, what, FUSED, old, new, proofs, short=short)


FAULTS = (
    fault(
        "lora_down",
        "store mask",
        "stores one row too many",
        "inside = (rows < M)[:, None]\n    tl.store(out, (acc0",
        "inside = (rows < M + 1)[:, None]\n    tl.store(out, (acc0",
        RAGGED,
    ),
    fault(
        "lora_down",
        "load mask",
        "a tile's columns aren't masked",
        "inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]",
        "inside = (rows < num_rows)[:, None] & (columns >= 0)[None, :]",
        RAGGED,
    ),
    fault(
        "lora_down",
        "accumulation",
        "the last block of K is left out",
        "for first in range(0, K, BK):\n        columns = first",
        "for first in range(0, K - BK, BK):\n        columns = first",
        SMALL_PROGRAMS,
        short=True,
    ),
    fault(
        "lora_down",
        "bf16",
        "the running sum is rounded after each block",
        "return tl.dot(x, tl.trans(a_RK.to(x.dtype)), acc, input_precision=PRECISION)",
        "return tl.dot(x, tl.trans(a_RK.to(x.dtype)), acc, input_precision=PRECISION).to(x.dtype).to(tl.float32)",
        LONG_SUM,
    ),
    fault(
        "lora_down",
        "accumulation",
        "half of the random words are used twice",
        "words & 0xFFFF, words >> 16",
        "words & 0xFFFF, words & 0xFFFF",
        MASK,
    ),
    fault(
        "lora_down",
        "race",
        "neighbouring programs store overlapping rows",
        "out = s_ptr + rows[:, None].to(tl.int64) * (G * RP) + tl.arange(0, RP)[None, :]",
        "out = s_ptr + (rows // 2)[:, None].to(tl.int64) * (G * RP) + tl.arange(0, RP)[None, :]",
        RAGGED,
    ),
    fault(
        "lora_up_init",
        "store mask",
        "stores one row too many",
        "inside = (rows < M)[:, None] & (columns < N)[None, :]",
        "inside = (rows < M + 1)[:, None] & (columns < N)[None, :]",
        RAGGED,
    ),
    fault(
        "lora_up_init",
        "accumulation",
        "the bias is left out",
        "    acc = _small_term(acc, s_ptr, b_ptr, rows, columns, stride_s, stride_b, M, N, rank, RP, PRECISION)\n"
        "    if HAS_BIAS:\n"
        "        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]\n"
        "    inside =",
        "    acc = _small_term(acc, s_ptr, b_ptr, rows, columns, stride_s, stride_b, M, N, rank, RP, PRECISION)\n"
        "    inside =",
        SMALL_PROGRAMS,
    ),
    fault(
        "lora_gemm",
        "store mask",
        "stores columns past the end",
        "tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (columns < N)[None, :])",
        "tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (columns >= 0)[None, :])",
        RAGGED,
    ),
    fault(
        "lora_gemm",
        "load mask",
        "the last block of K is read past its end",
        "inside = first + tl.arange(0, BK) < K",
        "inside = first + tl.arange(0, BK) < K + 1",
        RAGGED,
    ),
    fault(
        "lora_gemm",
        "accumulation",
        "the last block of K is left out",
        "for first in range(0, K, BK):\n        if EVEN_K",
        "for first in range(0, K - BK, BK):\n        if EVEN_K",
        SMALL_PROGRAMS,
    ),
    fault(
        "lora_gemm",
        "race",
        "two programs take one tile",
        "within = tl.program_id(0) % (GROUP * across)",
        "within = (tl.program_id(0) // 2 * 2) % (GROUP * across)",
        RAGGED,
    ),
    fault(
        "lora_bwd_s",
        "store mask",
        "ds is stored past its last row",
        "tl.store(out, ds, mask=(rows < M)[:, None])",
        "tl.store(out, ds)",
        RAGGED,
    ),
    fault(
        "lora_bwd_s",
        "accumulation",
        "dB keeps its last block alone",
        "db = tl.dot(tl.trans(dy), s, db, input_precision=PRECISION)",
        "db = tl.dot(tl.trans(dy), s, input_precision=PRECISION)",
        STRIP,
    ),
    fault(
        "lora_bwd_s",
        "race",
        "strips overlap by a row",
        "for first in range(part * strip, min((part + 1) * strip, M), BM):\n"
        "        rows = first + tl.arange(0, BM)\n        dy =",
        "for first in range(part * strip, min((part + 1) * strip, M), BM):\n"
        "        rows = tl.maximum(first - 1, 0) + tl.arange(0, BM)\n        dy =",
        RAGGED,
    ),
    fault(
        "lora_bwd_xa",
        "store mask",
        "dx is stored past its last row",
        "mask=(rows < M)[:, None] & (columns < K)[None, :])\n    if WANTS_A",
        "mask=(rows < M + 1)[:, None] & (columns < K)[None, :])\n    if WANTS_A",
        RAGGED,
    ),
    fault(
        "lora_bwd_xa",
        "accumulation",
        "dA forgets the mask",
        "x = tl.where(keep, x, 0.0).to(x.dtype)\n    elif",
        "x = x.to(x.dtype)\n    elif",
        DROPPED,
        SMALL_PROGRAMS,
    ),
    fault(
        "lora_bwd_xa",
        "race",
        "strips leave dA in one place",
        "out = da_ptr + (part.to(tl.int64) * (G * RP)",
        "out = da_ptr + ((part // 2).to(tl.int64) * (G * RP)",
        RAGGED,
    ),
    fault(
        "reduce_partials",
        "store mask",
        "stores past the last row",
        "    inside = row < rows\n    total",
        "    inside = row < rows + 1\n    total",
        RAGGED,
    ),
    fault(
        "reduce_partials",
        "accumulation",
        "the first plane is left out",
        "for _ in range(count):",
        "for _ in range(1, count):",
        PARTIALS,
        short=True,
    ),
)
