"""What the ahead-of-time compiler needs to know of a kernel: every configuration that ships, as data.

Each operator's `fused.py` lists its own in `variants()`. Nothing here imports triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Variant:
    """One shipped configuration of a kernel.

    `signature` gives each run-time argument its Triton type ("*bf16", "*i64", "i32", "fp32"), `constants` the
    constexprs; together they name every argument of `kernel`. `aligned` are the arguments (pointers, strides, sizes)
    that a launch with ordinary shapes finds divisible by 16: they decide whether loads are 128 bits wide. `has_dot`
    says that tensor-core instructions must appear, `wide` that 128-bit loads must. `spilled_bytes` is what may spill
    per target, 0 unless the reason stands beside the number.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    has_dot: bool = True
    wide: bool = True
    targets: tuple[str, ...] = TARGETS
    spilled_bytes: Mapping[str, int] | None = None
