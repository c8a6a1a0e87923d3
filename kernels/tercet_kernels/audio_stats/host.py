"""Statistics of clips on a CPU: numpy, clip by clip, so that a clip is read from memory once and from cache after that.

Shapes: S samples of all clips, C clips, F frames of all clips.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from tercet_kernels.audio_stats.reference import CLIPPED
from tercet_kernels.audio_stats.summary import AudioStats, Framing, Totals, conclude

BLOCK_SAMPLES = 1 << 16  # 512 KiB once they are fp64: inside L2; thrice as slow at 480,000 samples in one piece


def audio_stats_on_host(samples_S: Tensor, framing: Framing, below_db: float) -> AudioStats:
    """Compute the statistics of CPU tensors; sums run in fp64."""
    import numpy as np

    edges = framing.edges().tolist()
    square_F = np.empty(edges[-1])
    totals_5C = np.zeros((5, len(edges) - 1))
    is_wide = samples_S.dtype in {torch.float32, torch.float64}
    for clip, (start, end) in enumerate(itertools.pairwise(framing.offsets_C1.tolist())):
        if end > start:
            samples = samples_S[start:end]
            values = (samples if is_wide else samples.float()).numpy()
            squares = square_F[edges[clip] : edges[clip + 1]]
            total = _sum_frames(values, framing.frame, squares)
            peak, clipped, crossings = _count(values)
            totals_5C[:, clip] = squares.sum(), total, peak, clipped, crossings
    return conclude(framing, torch.from_numpy(square_F), Totals(*torch.from_numpy(totals_5C)), below_db)


def _sum_frames(values: Any, frame: int, squares: Any) -> float:
    """Write each frame's sum of squares, the last one as long as it is, and return the sum of all samples."""
    import numpy as np

    total = 0.0
    frames = max(1, BLOCK_SAMPLES // frame)
    for first in range(0, len(squares), frames):
        wide = values[first * frame : (first + frames) * frame].astype(np.float64)
        total += float(wide.sum())
        whole = len(wide) // frame
        rows = wide[: whole * frame].reshape(whole, frame)
        rest = wide[whole * frame :]
        squares[first : first + whole] = np.vecdot(rows, rows)
        if len(rest):
            squares[first + whole] = rest @ rest
    return total


def _count(values: Any) -> tuple[float, int, int]:
    """Give peak, clipped samples and zero crossings of one clip."""
    import numpy as np

    peak = float(np.maximum(values.max(), -values.min()))  # NaN stays NaN
    negative = values < 0
    # few clips reach full scale: the others need no second look
    clipped = np.count_nonzero(np.abs(values) >= CLIPPED) if peak >= CLIPPED else 0
    return peak, int(clipped), int(np.count_nonzero(negative[1:] ^ negative[:-1]))
