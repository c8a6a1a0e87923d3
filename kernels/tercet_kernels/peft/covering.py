"""What the fused path covers: `plan` reads one LoRA layer as it stands now, and names the reason where PEFT must run.

Shapes: N outputs, K inputs, R rank.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from tercet_kernels.lora import Member

DORA = ("DoraLinearVariant", "DoraConv2dVariant")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PLAIN = (Tensor, nn.Parameter)  # a subclass (quantised, sharded, fake) computes in its own way


class Plan(NamedTuple):
    """A covered layer: its member, and DoRA's magnitude."""

    member: Member
    magnitude_N: Tensor | None = None


def is_covered(module: nn.Module, linear: type, conv: type) -> bool:
    """Tell whether a layer can be fused at all; what may change from call to call is left to `plan`."""
    return not static_obstacle(module, linear, conv)


def static_obstacle(module: Any, linear: type, conv: type) -> str:
    """Say what keeps a layer of PEFT from ever being fused; empty where nothing does."""
    kind: Any = type(module)
    if kind not in {linear, conv}:
        return f"a lora.{kind.__name__}"
    base = module.base_layer
    if type(base).forward not in {nn.Linear.forward, nn.Conv2d.forward}:
        return f"the base is a {type(base).__name__} with a forward of its own"
    if kind is linear:
        return "fan_in_fan_out" if module.fan_in_fan_out else ""
    shape = (base.kernel_size, base.stride, base.padding, base.dilation, base.groups)
    return "" if shape == ((1, 1), (1, 1), (0, 0), (1, 1), 1) else "a convolution that isn't 1x1, or strides or groups"


def plan(module: Any) -> Plan | str:
    """Return the plan of a call of `module` as it stands, or why PEFT must run."""
    if module._disable_adapters:
        return "adapters are disabled"
    if module.merged_adapters:
        return "the adapter is merged"
    names = [name for name in module.active_adapters if name in module.lora_A]
    if len(names) != 1:
        return f"{len(names)} active adapters"
    return _plan(module, names[0])


def _plan(module: Any, name: str) -> Plan | str:
    base, down, up, dropout = module.base_layer, module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    variant = module.lora_variant.get(name)
    if variant is not None and type(variant).__name__ not in DORA:
        return f"variant {type(variant).__name__}"
    if type(dropout) is not nn.Identity and (type(dropout) is not nn.Dropout or dropout.inplace):
        return f"dropout is a {type(dropout).__name__}"
    if any(_is_watched(part) for part in (base, down, up, dropout)) or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return "a hook or a forward of its own inside the layer"
    weight, a, b = (part._parameters.get("weight") for part in (base, down, up))
    scaling = module.scaling[name]
    obstacle = _unlike(weight, a, b) or _unlike_vanilla(up, scaling)
    if obstacle:
        return obstacle
    rate = dropout.p if type(dropout) is nn.Dropout and dropout.training else 0.0
    numbers = (float(scaling), float(rate))
    bias = base._parameters.get("bias")
    if weight.ndim == 4:
        weight, a, b = weight.flatten(1), a.flatten(1), b.flatten(1)
    if variant is None:
        return Plan(Member(weight, bias, a, b, *numbers))
    magnitude = module.lora_magnitude_vector[name]
    obstacle = _unlike_dora(weight, magnitude)
    if obstacle:
        return obstacle
    if module.training != dropout.training:
        numbers = (numbers[0], 0.0)  # PEFT's DoRA drops where the layer and its dropout both train
    return Plan(Member(weight, bias, a, b, *numbers), magnitude.weight.flatten())


def _unlike(weight: Any, a: Any, b: Any) -> str:
    if not (type(weight) in PLAIN and type(a) in PLAIN and type(b) in PLAIN):
        return "a weight that is no plain parameter"
    if weight.dtype in DTYPES and a.dtype in DTYPES and weight.device == a.device == b.device:
        return ""
    return f"a weight of {weight.dtype} on {weight.device}, factors of {a.dtype} on {a.device}"


def _unlike_dora(weight: Tensor, magnitude: Any) -> str:
    from peft.tuners.lora import dora

    if weight.requires_grad:
        return "DoRA beside a weight that is trained"
    # PEFT fills the cache, and empties it in the first call without it
    if magnitude._dora_cache or (dora.ENABLE_DORA_CACHING and not magnitude.training):
        return "DoRA's norm is cached"
    return ""


def _unlike_vanilla(up: nn.Module, scaling: Any) -> str:
    if isinstance(scaling, Tensor):  # its value may change between two calls of one compiled graph
        return "the scaling is a tensor, made ready for a hotswap"
    return "lora_bias" if up._parameters.get("bias") is not None else ""


def misfit(x: Any, weight: Tensor) -> str:
    """Say why this x can't take the fused path; empty where it can."""
    if type(x) not in PLAIN:
        return f"x is a {type(x).__name__}"
    if x.device != weight.device or x.is_meta:
        return f"x is on {x.device}, the weight on {weight.device}"
    if torch.is_autocast_enabled(x.device.type):
        if torch.float64 in {x.dtype, weight.dtype}:
            return "autocast leaves fp64 alone"
    elif x.dtype != weight.dtype:
        return f"x is {x.dtype}, the weight {weight.dtype}"
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "export keeps PEFT's operators"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return ""


def _is_watched(part: nn.Module) -> bool:
    """Tell whether somebody's hook, or forward, would be missed if the part weren't called."""
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or "forward" in part.__dict__
        or type(part).forward not in FORWARDS
    )


FORWARDS = {nn.Linear.forward, nn.Conv2d.forward, nn.Identity.forward, nn.Dropout.forward}
