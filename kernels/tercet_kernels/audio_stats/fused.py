"""Statistics of clips on a GPU: one kernel reads the samples and leaves five numbers a frame; the rest is small.

A program takes FRAMES frames, BLOCK samples of each at a time, and sums in registers until the frames end. Frames of
all clips stand in one list, so a batch of ragged clips keeps programs equally busy. No atomics: the same bits, always.
Shapes: S samples, C clips, F frames of all clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tercet_kernels.audio_stats.reference import CLIPPED
from tercet_kernels.audio_stats.summary import AudioStats, Framing, Totals, conclude, rows_of
from tercet_kernels.compiling import Variant


@dataclass(frozen=True)
class Tiles:
    """One launch configuration: FRAMES frames, BLOCK samples of each at a time."""

    frames: int
    block: int
    num_warps: int


# four values a thread: eight take up to 148 registers (sm_90), and leave room for half as many programs
CONFIGS = (Tiles(frames=8, block=64, num_warps=4), Tiles(frames=4, block=256, num_warps=8))


def pick(frame: int) -> Tiles:
    """Choose narrow tiles for frames up to 512 samples: 320 of 16 kHz fill five blocks of 64, and 62% of one of 512."""
    return CONFIGS[frame > 512]


@triton.jit
def frame_kernel(
    samples_ptr, offsets_ptr, edges_ptr, clip_ptr, out_ptr, F, frame, clipped,
    FRAMES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write each frame's sum of squares, sum, peak, clipped samples and zero crossings: five rows of F."""
    number = tl.program_id(0).to(tl.int64) * FRAMES + tl.arange(0, FRAMES)
    inside = number < F
    clip = tl.load(clip_ptr + number, mask=inside, other=0)
    begin = tl.load(offsets_ptr + clip, mask=inside, other=0)
    start = begin + (number - tl.load(edges_ptr + clip, mask=inside, other=0)) * frame
    end = tl.minimum(start + frame, tl.load(offsets_ptr + clip + 1, mask=inside, other=0))

    square = tl.zeros((FRAMES, BLOCK), tl.float32)
    total = tl.zeros((FRAMES, BLOCK), tl.float32)
    peak = tl.zeros((FRAMES, BLOCK), tl.float32)
    high = tl.zeros((FRAMES, BLOCK), tl.float32)
    crossings = tl.zeros((FRAMES, BLOCK), tl.float32)
    for first in range(0, frame, BLOCK):
        place = start[:, None] + first + tl.arange(0, BLOCK)[None, :]
        here = inside[:, None] & (place < end[:, None])
        x = tl.load(samples_ptr + place, mask=here, other=0.0).to(tl.float32)
        # the neighbour comes from L1: the line has just been read
        has_before = here & (place > begin[:, None])
        before = tl.load(samples_ptr + place - 1, mask=has_before, other=0.0).to(tl.float32)
        size = tl.abs(x)
        # a NaN compares false and becomes infinity, which no maximum loses
        size = tl.where(size < float("inf"), size, float("inf"))
        square += x * x
        total += x
        peak = tl.maximum(peak, size)
        high += (size >= clipped).to(tl.float32)
        crossings += (has_before & ((x < 0) != (before < 0))).to(tl.float32)
    row = out_ptr + number
    stride = F.to(tl.int64)
    tl.store(row, tl.sum(square, axis=1), mask=inside)
    tl.store(row + stride, tl.sum(total, axis=1), mask=inside)
    tl.store(row + 2 * stride, tl.max(peak, axis=1), mask=inside)
    tl.store(row + 3 * stride, tl.sum(high, axis=1), mask=inside)
    tl.store(row + 4 * stride, tl.sum(crossings, axis=1), mask=inside)


def audio_stats_fused(samples_S: Tensor, framing: Framing, below_db: float) -> AudioStats:
    """Compute the statistics; see `audio_stats_reference`."""
    frames_C, edges_C1 = framing.count_frames(), framing.edges()
    count = int(edges_C1[-1])
    clips_C = torch.arange(len(frames_C), device=samples_S.device)
    clip_F = torch.repeat_interleave(clips_C, frames_C, output_size=count)
    out_5F = torch.empty(5, count, dtype=torch.float32, device=samples_S.device)
    tiles = pick(framing.frame)
    if count:
        frame_kernel[(triton.cdiv(count, tiles.frames),)](
            samples_S, framing.offsets_C1, edges_C1, clip_F, out_5F, count, framing.frame, CLIPPED,
            FRAMES=tiles.frames, BLOCK=tiles.block, num_warps=tiles.num_warps,
        )  # fmt: skip
    square_F, total_F, peak_F, high_F, crossings_F = out_5F.double()
    totals = Totals(
        square_C=_add_up(framing, square_F),
        sum_C=_add_up(framing, total_F),
        peak_C=torch.cat([row_BN.amax(1) for row_BN, _ in rows_of(framing, peak_F)]),
        clipped_C=_add_up(framing, high_F),
        crossings_C=_add_up(framing, crossings_F),
    )
    return conclude(framing, square_F, totals, below_db)


def _add_up(framing: Framing, values_F: Tensor) -> Tensor:
    return torch.cat([row_BN.sum(1) for row_BN, _ in rows_of(framing, values_F)])


def variants() -> list[Variant]:
    """List every shipped configuration; ragged clips begin anywhere, so no load is 128 bits wide by promise."""
    return [
        Variant(
            name=f"audio_stats-{dtype}-{tiles.frames}x{tiles.block}",
            kernel=frame_kernel,
            signature={
                "samples_ptr": f"*{dtype}", "offsets_ptr": "*i64", "edges_ptr": "*i64", "clip_ptr": "*i64",
                "out_ptr": "*fp32", "F": "i32", "frame": "i32", "clipped": "fp32",
            },
            constants={"FRAMES": tiles.frames, "BLOCK": tiles.block},
            aligned=("samples_ptr", "offsets_ptr", "edges_ptr", "clip_ptr", "out_ptr", "frame"),
            num_warps=tiles.num_warps,
            has_dot=False,
            wide=False,
        )
        for dtype in ("fp32", "fp16", "bf16")
        for tiles in CONFIGS
    ]  # fmt: skip
