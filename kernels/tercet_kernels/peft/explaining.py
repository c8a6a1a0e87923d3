"""Say of each LoRA layer which path its next call takes, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from tercet_kernels.lora import choose
from tercet_kernels.peft.covering import plan, static_obstacle
from tercet_kernels.peft.layers import FusedPixels, is_fused
from tercet_kernels.peft.loading import peft_layers

MANY_ROWS = 4096  # of an x to ask about


@dataclass(frozen=True)
class Row:
    """One LoRA layer: `path` is "triton", "torch" or "peft", and `group` names the linears that run with it."""

    layer: str
    path: str
    group: str
    reason: str

    def __str__(self) -> str:
        beside = f" [{self.group}]" if self.group else ""
        return f"{self.layer}: {self.path}: {self.reason}{beside}"


class Explanation(tuple[Row, ...]):
    """The rows of a model; printed, a line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(str(row) for row in self)


def explain(model: nn.Module) -> Explanation:
    """Return a row for each LoRA layer of `model`, as it stands: adapters, modes, devices and environment included."""
    peft_layers()
    from peft.tuners.lora.layer import LoraLayer

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    return Explanation(_row(name, module) for name, module in layers)


def _row(name: str, module: Any) -> Row:
    if not is_fused(module):
        obstacle = static_obstacle(module, *peft_layers())
        return Row(name, "peft", "", f"not covered: {obstacle}" if obstacle else "not fused; call fuse(model)")
    found = plan(module)
    if isinstance(found, str):
        return Row(name, "peft", "", f"not covered: {found}")
    weight_NK = found.member.weight_NK
    x_MK = weight_NK.new_empty(1, 1).expand(MANY_ROWS, weight_NK.shape[1])
    path, group, _ = module.tercet_place
    try:
        choice = choose(x_MK, [found.member], path)
    except ValueError as error:  # a path that was asked for and can't be had here
        return Row(name, "error", "", str(error))
    is_dora, drops = found.magnitude_N is not None, bool(found.member.dropout)
    if is_dora and drops:
        return Row(name, "torch", "", "DoRA with dropout")
    aside = "; in PEFT where x is channels first" if isinstance(module, FusedPixels) and not (is_dora or drops) else ""
    return Row(name, choice.path, str(group or ""), choice.reason + aside)
