"""Faults whose numbers are right, that only a compiler for the GPU shows: spills, shared memory, narrow loads."""

from __future__ import annotations

from tests.kernels.proof.planting import Fault


def fault(kernel: str, what: str, file: str, old: str, new: str, variant: str, *, short: bool = False) -> Fault:
    """Give a fault that the compile of one variant for one target shows."""
    return Fault(kernel, "resources", what, file, old, new, (f"ahead:{kernel}/{variant}",), short=short)


TILES, VARIANTS = "lora/tiles.py", "lora/variants.py"
FAULTS = (
    fault(
        "lora.lora_gemm",
        "two stages more than shared memory holds",
        TILES,
        "num_stages=4 if capability[0] == 9 else 3)",
        "num_stages=6 if capability[0] == 9 else 3)",
        "gemm bf16 128x256 sm_90 P16@sm_90",
        short=True,
    ),
    fault(
        "lora.lora_gemm",
        "the hints on the strides of x and W are lost",
        VARIANTS,
        '"N", "K", "stride_x", "stride_w", "stride_s"',
        '"N", "K", "stride_s"',
        "gemm bf16 128x128 sm_80 P16@sm_80",
    ),
    fault(
        "lora.lora_down",
        "the hints on K and the stride of x are lost",
        VARIANTS,
        '"K", "stride_x", "stride_a0", "stride_a1", "stride_a2"),',
        '"stride_a0", "stride_a1", "stride_a2"),',
        "down bf16 G1 P16@sm_90",
    ),
    fault(
        "lora.lora_down",
        "four times the rows, which spill",
        TILES,
        "return Tile(rows=32 if low else 64, columns=64, num_stages",
        "return Tile(rows=256, columns=64, num_stages",
        "down bf16 G3 P16 drop@sm_80",
    ),
    fault(
        "lora.lora_up_init",
        "one warp, which spills",
        TILES,
        "return Tile(rows=128, columns=128, num_warps=8, num_stages=1)",
        "return Tile(rows=128, columns=128, num_warps=1, num_stages=1)",
        "up_init bf16 P16@sm_80",
    ),
    fault(
        "lora.lora_bwd_s",
        "the hint on the stride of dY is lost",
        VARIANTS,
        '"N", "stride_dy", "stride_b", "stride_s", "strip"',
        '"N", "stride_b", "stride_s", "strip"',
        "bwd_s bf16 P16 dB@sm_90",
    ),
    fault(
        "lora.lora_bwd_xa",
        "one warp, which spills",
        TILES,
        "return Tile(rows=64 if element_bytes == 2 else 32, columns=64, num_warps=8, num_stages=2)",
        "return Tile(rows=64 if element_bytes == 2 else 32, columns=64, num_warps=1, num_stages=2)",
        "bwd_xa bf16 G3 P16 drop@sm_80",
    ),
    fault(
        "lora.reduce_partials",
        "the hints on the planes are lost",
        VARIANTS,
        '"plane", "columns", "stride_part", "stride_out"',
        '"stride_out",',
        "reduce fp32@sm_90",
    ),
    fault(
        "similarity.earlier_max_kernel",
        "the hint on the rows' stride is lost",
        "similarity/fused.py",
        'ALIGNED = ("x_ptr", "inverse_ptr", "D", "stride")',
        'ALIGNED = ("x_ptr", "inverse_ptr", "D")',
        "bf16-64x32@sm_90",
    ),
    fault(
        "similarity.pairs_above_kernel",
        "two warps, which spill",
        "similarity/fused.py",
        "LARGE = Tiles(block=128, block_d=64, group=8, num_warps=8,",
        "LARGE = Tiles(block=128, block_d=64, group=8, num_warps=2,",
        "bf16-128x64@sm_90",
    ),
    fault(
        "minhash.shingle_kernel",
        "16384 shingles at a time, which spill",
        "minhash/fused.py",
        '"BYTES": bytes_, "PART": launch.part, "BLOCK": launch.block}',
        '"BYTES": bytes_, "PART": launch.part, "BLOCK": 16 * launch.block}',
        "shingle_hashes-u8-1024@sm_90",
    ),
    fault(
        "minhash.round_kernel",
        "16384 shingles at a time, which spill",
        "minhash/fused.py",
        '"NUMBER": number, "PART": launch.part, "BLOCK": launch.block}',
        '"NUMBER": number, "PART": launch.part, "BLOCK": 16 * launch.block}',
        "minhash-round0-1024@sm_90",
    ),
    fault(
        "minhash.agreement_kernel",
        "128 pairs a program, which spill",
        "minhash/fused.py",
        'constants={"BLOCK": launch.block, "BLOCK_P": launch.block_p},',
        'constants={"BLOCK": 16 * launch.block, "BLOCK_P": launch.block_p},',
        "minhash-agreement-u64@sm_90",
    ),
    fault(
        "minhash.line_kernel",
        "512 hashes at a time, which spill",
        "minhash/fused.py",
        '"DOMAIN": FALLBACK_DOMAIN, "PART": launch.part, "BLOCK": launch.block,',
        '"DOMAIN": FALLBACK_DOMAIN, "PART": launch.part, "BLOCK": 16 * launch.block,',
        "minhash-line0-32x128@sm_90",
    ),
    fault(
        "edit_distance.edit_distance_kernel",
        "32 long pairs a program, which spill",
        "edit_distance/fused.py",
        '"PAIRS": rows.pairs}',
        '"PAIRS": 32 * rows.pairs}',
        "1024x1@sm_90",
    ),
    fault(
        "audio_stats.frame_kernel",
        "128 frames a program, which spill",
        "audio_stats/fused.py",
        'constants={"FRAMES": tiles.frames, "BLOCK": tiles.block},',
        'constants={"FRAMES": 16 * tiles.frames, "BLOCK": tiles.block},',
        "audio_stats-fp32-8x64@sm_90",
    ),
)
