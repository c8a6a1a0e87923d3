"""What the machine code of a shipped kernel must keep, on every GPU that it is compiled for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.kernels.proof.machine_code import Facts
from tests.kernels.proof.shipped import Shipped

from tercet_kernels.compiling import Variant

SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}  # bytes a block may ask for
# Of the loaded bytes. A lost hint makes every load of that tensor narrow; AMD's matrix operands come in narrow anyway.
LEAST_WIDE_PERCENT = {"sm_80": 50, "sm_90": 50, "sm_100": 50, "gfx942": 25}
MOST_VARIANTS = 12  # per kernel and target: each is compiled once on a user's machine


def violations(variant: Variant, target: str, facts: Facts, *, may_spill_more: bool = False) -> list[str]:
    """Say what the compiled variant breaks; empty where nothing.

    `spilled_bytes` is exact for the pinned Triton; another one's register allocation is its own: `may_spill_more`.
    """
    limit, may_spill = SHARED_LIMIT[target], (variant.spilled_bytes or {}).get(target, 0)
    least_wide = LEAST_WIDE_PERCENT[target]
    broken = []
    if facts.spilled_bytes != may_spill and not may_spill_more:
        broken.append(f"spills {facts.spilled_bytes} bytes; the variant says {may_spill}")
    if facts.shared_bytes > limit:
        broken.append(f"asks for {facts.shared_bytes} bytes of shared memory; {target} has {limit}")
    if variant.has_dot and not facts.tensor_core:
        broken.append("has no tensor-core instruction")
    if variant.wide and facts.wide_percent < least_wide:
        broken.append(f"loads {facts.wide_percent}% of its bytes 128 bits at a time; {least_wide}% at least")
    return broken


def list_faults(shipped: Sequence[Shipped]) -> list[str]:
    """Say which kernels list two variants of one name, or too many for one target."""
    names = Counter(one.name for one in shipped)
    sizes = Counter((one.kernel, target) for one in shipped for target in one.variant.targets)
    return [f"{name} is listed {number} times" for name, number in names.items() if number > 1] + [
        f"{kernel} has {number} variants for {target}; {MOST_VARIANTS} at most"
        for (kernel, target), number in sizes.items()
        if number > MOST_VARIANTS
    ]
