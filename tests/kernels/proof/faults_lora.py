"""Faults of the LoRA kernels."""

from __future__ import annotations

from tests.kernels.proof.planting import Fault

FUSED, TILES = "lora/fused.py", "lora/tiles.py"
DEVICE = "tests/kernels/device/test_lora_device.py::"
EVERY_LAUNCH = f"{DEVICE}test_every_launch_is_near_the_definition"
RAGGED = f"{EVERY_LAUNCH}[33-47-35-5-0.0-torch.float32]"
DROPPED = f"{EVERY_LAUNCH}[33-47-35-5-0.3-torch.float32]"
INTERPRETED = "tests/kernels/test_lora_fused.py::"
SMALL_PROGRAMS = f"{INTERPRETED}test_many_small_programs_agree_with_one"
STRIP = f"{INTERPRETED}test_the_row_blocks_of_one_strip_add_up"
LONG_SUM = f"{DEVICE}test_sums_over_k_are_kept_in_fp32"
ROUNDED_ONCE = f"{DEVICE}test_the_small_term_and_the_bias_are_rounded_once"
ROW_SUM = f"{DEVICE}test_sums_over_rows_are_kept_in_fp32"
PLANES = f"{DEVICE}test_partials_of_many_programs_are_summed_in_fp32"
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
        "programs store into the row above their own",
        "out = s_ptr + rows[:, None].to(tl.int64) * (G * RP) + tl.arange(0, RP)[None, :]",
        "out = s_ptr + (rows - tl.program_id(0))[:, None].to(tl.int64) * (G * RP) + tl.arange(0, RP)[None, :]",
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
        "lora_up_init",
        "load mask",
        "the bias is read past its end",
        "mask=columns < N, other=0.0).to(tl.float32)[None, :]\n    inside =",
        "mask=columns < N + 1, other=0.0).to(tl.float32)[None, :]\n    inside =",
        RAGGED,
    ),
    fault(
        "lora_up_init",
        "race",
        "programs store into the row above their tile",
        "+ columns[None, :]\n    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=inside)",
        "+ columns[None, :] - tl.program_id(0) * stride_y\n"
        "    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=inside)",
        RAGGED,
    ),
    fault(
        "lora_up_init",
        "bf16",
        "the small term is rounded before the bias",
        "acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]\n    inside =",
        "acc = acc.to(y_ptr.dtype.element_ty).to(tl.float32)\n"
        "        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]\n    inside =",
        ROUNDED_ONCE,
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
        "programs store left of their tile",
        "+ columns[None, :]\n    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=(rows",
        "+ columns[None, :] - within\n    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=(rows",
        RAGGED,
    ),
    fault(
        "lora_gemm",
        "bf16",
        "the running sum is rounded after each block",
        "acc = tl.dot(x, w, acc, input_precision=PRECISION)",
        "acc = tl.dot(x, w, acc, input_precision=PRECISION).to(x.dtype).to(tl.float32)",
        LONG_SUM,
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
        "strips leave dB in one place",
        "out = db_ptr + (part.to(tl.int64) * N",
        "out = db_ptr + ((part // 2).to(tl.int64) * N",
        RAGGED,
    ),
    fault(
        "lora_bwd_s",
        "load mask",
        "columns of dY past the end are read",
        "_tile(dy_ptr, rows, columns, stride_dy, M, N)",
        "_tile(dy_ptr, rows, columns, stride_dy, M, N + 1)",
        RAGGED,
    ),
    fault(
        "lora_bwd_s",
        "bf16",
        "the running dB is rounded after each block",
        "db = tl.dot(tl.trans(dy), s, db, input_precision=PRECISION)",
        "db = tl.dot(tl.trans(dy), s, db, input_precision=PRECISION).to(dy.dtype).to(tl.float32)",
        ROW_SUM,
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
        "lora_bwd_xa",
        "load mask",
        "a row of x past the last is read",
        "x = _tile(x_ptr, rows, columns, stride_x, M, K)\n        dx, da0",
        "x = _tile(x_ptr, rows, columns, stride_x, M + 1, K)\n        dx, da0",
        RAGGED,
    ),
    fault(
        "lora_bwd_xa",
        "bf16",
        "the running dA is rounded after each block",
        "da = tl.dot(tl.trans(ds), x, da, input_precision=PRECISION)",
        "da = tl.dot(tl.trans(ds), x, da, input_precision=PRECISION).to(ds.dtype).to(tl.float32)",
        ROW_SUM,
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
    fault(
        "reduce_partials",
        "load mask",
        "planes are read past their last row",
        "total += tl.load(start, mask=inside, other=0.0)",
        "total += tl.load(start)",
        RAGGED,
    ),
    fault(
        "reduce_partials",
        "race",
        "programs store before their first element",
        "out = out_ptr + row * stride_out + column",
        "out = out_ptr + row * stride_out + column - tl.program_id(0)",
        PLANES,
    ),
    fault(
        "reduce_partials",
        "bf16",
        "the sum is rounded after each plane",
        "        start += plane",
        "        total = total.to(out_ptr.dtype.element_ty).to(tl.float32)\n        start += plane",
        PLANES,
    ),
)
