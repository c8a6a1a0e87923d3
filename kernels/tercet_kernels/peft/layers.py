"""A fused layer is its PEFT layer with another class: PEFT's own with one more `forward` before it.

An instance attribute `forward` would do for one process. A class also survives `copy.deepcopy`, pickling and the
replicas of DataParallel, which copy attributes but need a forward bound to the replica; FSDP2 does the same.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tercet_kernels.lora import dora_linear, lora_linear
from tercet_kernels.peft.covering import Plan, misfit, plan
from tercet_kernels.peft.groups import Group
from tercet_kernels.peft.loading import peft_layers

NAMES = ("FusedLinear", "FusedConv2d")


class Place(NamedTuple):
    """How a layer was fused: the path asked for, and its place in a group."""

    path: str
    group: Group | None = None
    order: int = 0


class Fused:
    """The forward of a fused layer; it stands before PEFT's in the order of inheritance."""

    tercet_place: Place

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return y of the fused path where this call is covered, else what PEFT returns."""
        found = "arguments beside x" if args or kwargs else plan(self)
        if isinstance(found, str) or misfit(x, found.member.weight_NK):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        return self.run(x, found)

    def run(self, x: Tensor, found: Plan) -> Any:
        """Compute y of a linear."""
        path, group, order = self.tercet_place
        if found.magnitude_N is not None:
            return dora_linear(x, found.member, found.magnitude_N, path=path)
        if group is None or torch.compiler.is_compiling():
            return lora_linear(x, found.member, path=path)
        return group.run(x, order, found, path)


class FusedPixels(Fused):
    """The forward of a fused 1x1 convolution: a linear over the channels of each pixel."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Leave a single image, (C, H, W), to PEFT."""
        if isinstance(x, Tensor) and x.ndim != 4:
            return super(Fused, self).forward(x, *args, **kwargs)  # type: ignore[misc]
        return super().forward(x, *args, **kwargs)

    def run(self, x: Tensor, found: Plan) -> Any:
        """Compute y (B, N, H, W) of x (B, K, H, W), in x's memory format.

        Channels first, x and y are transposed on the way, which costs more than a LoRA without dropout saves: 11 % of
        a UNet's proj_in on a CPU. PEFT runs that.
        """
        if not x.is_contiguous():
            return super().run(x.permute(0, 2, 3, 1), found).permute(0, 3, 1, 2)
        if found.magnitude_N is None and not found.member.dropout:
            return super(Fused, self).forward(x)  # type: ignore[misc]
        # contiguous rows: the mask is applied row by row
        return super().run(x.permute(0, 2, 3, 1).contiguous(), found).permute(0, 3, 1, 2).contiguous()


@functools.cache
def fused_classes() -> dict[str, type]:
    """Make the two classes; PEFT is imported no earlier than here."""
    pairs = zip(NAMES, (Fused, FusedPixels), peft_layers(), strict=True)
    return {name: type(name, (forward, layer), {"__module__": __name__}) for name, forward, layer in pairs}


def __getattr__(name: str) -> type:
    """Find the classes for a pickle that names them."""
    if name in NAMES:
        return fused_classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_fused(module: nn.Module) -> bool:
    """Tell whether a layer has the fused forward."""
    return isinstance(module, Fused)


def fuse_layer(module: Any, place: Place) -> None:
    """Give a layer the fused forward, or a new place where it has it."""
    if not is_fused(module):
        module.__class__ = next(made for made in fused_classes().values() if type(module) in made.__bases__)
    module.tercet_place = place


def unfuse_layer(module: Any) -> None:
    """Give a layer PEFT's class back."""
    if type(module) in fused_classes().values():
        module.__class__ = type(module).__bases__[1]
        del module.tercet_place
