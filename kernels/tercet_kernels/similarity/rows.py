"""Rows made ready for the fast pass: checked, brought to length 1, and how far a fast dot product may be off.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 21  # 16 MiB of fp64: what a step in fp64 may hold at a time
UNIT_TOLERANCE = 0.01  # bf16 rounds a unit row's length by at most 0.002
# both operands, as if digits were cut rather than rounded
OPERAND_ROUNDING = {"none": 0.0, "ieee": 0.0, "tf32": 2.0**-9, "bf16": 2.0**-6}


def chunks(x_ND: Tensor) -> Iterator[slice]:
    """Cut the rows into slices that stay small in fp64."""
    step = max(1, CHUNK_ELEMENTS // x_ND.shape[1])
    for start in range(0, x_ND.shape[0], step):
        yield slice(start, min(start + step, x_ND.shape[0]))


def checked_lengths(x_ND: Tensor, operator: str, *, normalise: bool) -> Tensor:
    """Return each row's length in fp64.

    Raises ValueError that names the first row with NaN or infinity, and one of length 0 (`normalise`) or not of
    length 1 (not `normalise`).
    """
    length_N = x_ND.new_empty(x_ND.shape[0], dtype=torch.float64)
    for part in chunks(x_ND):
        torch.linalg.vector_norm(x_ND[part].double(), dim=1, out=length_N[part])
    _refuse(~length_N.isfinite(), length_N, operator, "holds NaN or infinity, or is too long; mend or drop it")
    if normalise:
        _refuse(length_N == 0, length_N, operator, "has length 0, so no direction; drop it first")
    else:
        wrong_N = (length_N - 1).abs() > UNIT_TOLERANCE
        _refuse(wrong_N, length_N, operator, "has length {length:.6g}, not 1; pass normalise=True")
    return length_N


def unit_rows(x_ND: Tensor, length_N: Tensor, *, normalise: bool) -> Tensor:
    """Return the rows divided by their lengths, in fp32 (fp64 stays fp64); `x_ND` itself where that changes nothing."""
    dtype = torch.float64 if x_ND.dtype == torch.float64 else torch.float32
    if not normalise:
        return x_ND.to(dtype)
    units_ND = torch.empty(x_ND.shape, dtype=dtype, device=x_ND.device)
    for part in chunks(x_ND):
        units_ND[part] = x_ND[part].double() / length_N[part, None]
    return units_ND


def scaled_rows(x_ND: Tensor, length_N: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Return rows of a length between 0.7 and 1.5 in `x_ND`'s own dtype, and the fp32 factor that makes each 1.

    The scale is a power of two, so no digit is rounded (but fp16 below 2^-14 of a row's length, which the band covers):
    a kernel multiplies the very bf16 numbers that came in, and divides by the lengths after the sum.
    """
    if not normalise:
        return x_ND.contiguous(), torch.ones_like(length_N, dtype=torch.float32)
    scale_N = torch.exp2(-length_N.log2().round())
    inverse_N = (1 / (length_N * scale_N)).float()
    if bool((scale_N == 1).all()):
        return x_ND.contiguous(), inverse_N
    scaled_ND = torch.empty(x_ND.shape, dtype=x_ND.dtype, device=x_ND.device)
    for part in chunks(x_ND):
        scaled_ND[part] = (x_ND[part].double() * scale_N[part, None]).to(x_ND.dtype)
    return scaled_ND, inverse_N


def band_of_torch(x_ND: Tensor) -> float:
    """Bound the error of a dot product of two unit rows by torch, in any order of summation.

    D products and sums, and the rounding of the unit rows: (D + 8) u (Higham, Accuracy and Stability, 3.1), plus what
    torch's settings let a matrix product of fp32 cut off its operands.
    """
    features = x_ND.shape[1]
    if x_ND.dtype == torch.float64:
        return (features + 8) * 2.0**-53
    backend = torch.backends.cuda if x_ND.is_cuda else torch.backends.mkldnn
    return (features + 8) * 2.0**-24 + OPERAND_ROUNDING[backend.matmul.fp32_precision]


def band_of_tensor_cores(x_ND: Tensor, *, is_tf32: bool) -> float:
    """Bound the error of a dot product of two unit rows by the Triton kernels.

    Products of fp16 and bf16 are exact in fp32. Tensor cores cut where fp32 units round, and align to the largest of
    a few products first: 2^-22 a sum holds for both. TF32 cuts fp32 operands as well.
    """
    return (x_ND.shape[1] + 8) * 2.0**-22 + (OPERAND_ROUNDING["tf32"] if is_tf32 else 0.0)


def _refuse(wrong_N: Tensor, length_N: Tensor, operator: str, complaint: str) -> None:
    if bool(wrong_N.any()):
        row = int(wrong_N.nonzero()[0])
        raise ValueError(f"{operator}: row {row} {complaint.format(length=float(length_N[row]))}")
