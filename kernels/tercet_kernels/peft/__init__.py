"""PEFT models on the fused LoRA path: `fuse(model)`, `unfuse(model)`, `explain(model)`.

A fused layer stays PEFT's own module with PEFT's own parameters under their own names; its class alone changes, to a
subclass with another `forward`. Saving, loading, merging, switching, mixing and adding adapters are PEFT's.
"""

from __future__ import annotations

from torch import nn

from tercet_kernels.dispatch import PATHS
from tercet_kernels.peft.covering import is_covered
from tercet_kernels.peft.explaining import Explanation, Row, explain
from tercet_kernels.peft.groups import groups_of
from tercet_kernels.peft.layers import Place, fuse_layer, is_fused, unfuse_layer
from tercet_kernels.peft.loading import peft_layers

__all__ = ["Explanation", "Row", "explain", "fuse", "unfuse"]


def fuse(model: nn.Module, *, groups: bool = True, path: str = "auto") -> int:
    """Give each LoRA layer of `model` that can take it the fused forward; return how many layers have it now.

    `groups` lets linears that share x (q, k and v; gate and up) run as one. Each call of a layer decides anew, and what
    the kernels don't cover runs in PEFT; `explain` says which and why. What differs from PEFT: dropout draws another
    mask from the same generator, fp32 factors beside a 16-bit base compute in the base's dtype with fp32 sums, a second
    derivative raises, and a group is one node of the graph, so its members' backward can't run one by one.

    Raises ValueError where `path` isn't one of dispatch.PATHS.
    """
    if path not in PATHS:
        raise ValueError(f"fuse: path is {path!r}; choose from {', '.join(PATHS)}")
    linear, conv = peft_layers()
    fused = {}
    for name, module in model.named_modules():
        if is_fused(module) or is_covered(module, linear, conv):
            fuse_layer(module, Place(path))
            fused[name] = module
    for group in groups_of(fused) if groups else ():
        group.join()
    return len(fused)


def unfuse(model: nn.Module) -> int:
    """Give every fused layer of `model` its own class back; return how many there were."""
    fused = [module for module in model.modules() if is_fused(module)]
    for module in fused:
        unfuse_layer(module)
    return len(fused)
