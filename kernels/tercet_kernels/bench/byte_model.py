"""The byte model of LoRA: what each order of operations moves beyond a frozen linear (kernels.md A3.1).

X is one pass over x and Y one over y, in bytes of the arithmetic's dtype. A pair (a, b) stands for a X + b Y. What a
GEMM reads in its epilogue counts as hidden, as in the study. The split into forward and backward was counted pass by
pass; the sums are the study's, but for `tercet_fused`, whose backward accumulates onto cuBLAS as `tercet_beta`'s does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tercet_kernels.bench.entries import Traffic


class Passes(NamedTuple):
    """Passes over x and over y."""

    x: float
    y: float


# {provider: {mode: passes}}; the first table without dropout, the second with
WITHOUT_DROPOUT: dict[str, dict[str, Passes]] = {
    "frozen": {"forward": Passes(0, 0), "backward": Passes(0, 0)},
    # x to fp32 and back 3 + 3, A 1; dA 1, its dX 1, two casts 3 + 3, the sum of the two dX 3
    "peft": {"forward": Passes(7, 6), "backward": Passes(11, 4)},
    "peft_bf16": {"forward": Passes(1, 6), "backward": Passes(5, 4)},
    "unsloth_order": {"forward": Passes(1, 2), "backward": Passes(4, 3)},
    "tercet_beta": {"forward": Passes(1, 1), "backward": Passes(2, 1)},
    "tercet_fused": {"forward": Passes(1, 0), "backward": Passes(2, 1)},
}
WITH_DROPOUT: dict[str, dict[str, Passes]] = {
    "frozen": {"forward": Passes(0, 0), "backward": Passes(0, 0)},
    "peft": {"forward": Passes(11.5, 6), "backward": Passes(15.5, 4)},
    "peft_bf16": {"forward": Passes(3.5, 6), "backward": Passes(7.5, 4)},
    "tercet_beta": {"forward": Passes(1, 1), "backward": Passes(2, 1)},
    "tercet_fused": {"forward": Passes(1, 0), "backward": Passes(2, 1)},
}
SAME_ORDER = {"peft_order": "peft", "peft_order_bf16": "peft_bf16"}
ONCE_PER_GROUP = {"tercet_beta", "tercet_fused"}  # they pass over x once for all members


def lora_traffic(
    provider: str, mode: str, rows: int, inputs: int, outputs: Sequence[int], *, dropout: float, element_bytes: int
) -> Traffic | None:
    """Return the bytes that `provider` moves for a group of linears; None where the model doesn't know it.

    A forward reads x and W and writes y of each member; a backward reads dY and W and writes dX of each.
    """
    order = SAME_ORDER.get(provider, provider)
    if order == "peft" and element_bytes == 4:  # x is as wide as the factors: nothing is cast
        order = "peft_bf16"
    table = (WITH_DROPOUT if dropout else WITHOUT_DROPOUT).get(order)
    if table is None or mode not in ("forward", "backward", "step"):
        return None
    modes = ("forward", "backward") if mode == "step" else (mode,)
    x_bytes, members = rows * inputs * element_bytes, len(outputs)
    y_bytes = rows * sum(outputs) * element_bytes
    weight_bytes = inputs * sum(outputs) * element_bytes
    frozen = len(modes) * (members * x_bytes + y_bytes + weight_bytes)
    times_x = 1 if provider in ONCE_PER_GROUP else members
    extra = sum(table[part].x * times_x * x_bytes + table[part].y * y_bytes for part in modes)
    return Traffic(moved=int(frozen + extra), extra=int(extra))


def lora_flops(mode: str, rows: int, inputs: int, outputs: Sequence[int]) -> float:
    """Return the frozen arithmetic, 2 M K N a product: the LoRA part isn't counted, so rates of providers compare."""
    return 2.0 * rows * inputs * sum(outputs) * (2 if mode == "step" else 1)
