"""A small kernel with a helper and a constant, to try the proof machinery on."""

from __future__ import annotations

import triton
import triton.language as tl

from tercet_kernels.compiling import Variant

OFFSET = tl.constexpr(3)


@triton.jit
def shifted(x):
    """Add the constant."""
    return x + OFFSET


@triton.jit  # type: ignore[untyped-decorator]
def shift(x_ptr, y_ptr, size, BLOCK: tl.constexpr):
    """Add 3 to each element of a vector."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, shifted(tl.load(x_ptr + at, mask=at < size)), mask=at < size)  # ragged at the end


def variant(*aligned: str) -> Variant:
    """Give one configuration; aligned as told."""
    signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "size": "i32"}
    return Variant("1024", shift, signature, {"BLOCK": 1024}, aligned, has_dot=False)
