"""Which path a call takes, and why.

Order: the call's own `path=` argument, then `TERCET_<OPERATOR>` (TERCET_LORA=torch), then `TERCET_KERNELS`, then
automatic: Triton where the tensor is on a GPU that Triton can serve, plain torch or a CPU library elsewhere. An unknown
GPU is never an error; what an environment variable asks for in vain is logged once and passed over.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from dataclasses import dataclass

import torch
from torch import Tensor

PATHS = ("auto", "torch", "triton")
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

log = logging.getLogger("tercet_kernels")


@dataclass(frozen=True)
class Choice:
    """One answer of `choose_path`: `path` is "torch" or "triton", `reason` says why."""

    path: str
    reason: str

    @property
    def is_triton(self) -> bool:
        """Tell whether a Triton kernel runs."""
        return self.path == "triton"


def choose_path(operator: str, tensor: Tensor, asked: str = "auto") -> Choice:
    """Choose between Triton and torch for a call of `operator` on `tensor`.

    Raises ValueError where `asked` isn't one of PATHS, or asks for Triton on a tensor that no kernel can take.
    """
    if asked not in PATHS:
        raise ValueError(f"{operator}: path is {asked!r}; choose from {', '.join(PATHS)}")
    obstacle = why_not_triton(tensor)
    if asked == "triton" and obstacle:
        raise ValueError(f"{operator}: path='triton' is impossible: {obstacle}")
    if asked != "auto":
        return Choice(asked, "asked for by path=")
    wished = _choose_by_environment(operator, obstacle)
    if wished:
        return wished
    if tensor.is_cuda and not obstacle:
        return Choice("triton", "a GPU tensor")
    return Choice("torch", obstacle or "a CPU tensor")


def why_not_triton(tensor: Tensor) -> str:
    """Say what keeps Triton from `tensor`; empty where nothing does."""
    if not triton_is_here():
        return "triton isn't installed; run: pip install triton"
    if not tensor.is_cuda and not interpreting():
        return f"the tensor is on {tensor.device.type}"
    if tensor.is_floating_point() and tensor.dtype not in TRITON_DTYPES:
        return f"dtype {str(tensor.dtype).removeprefix('torch.')} has no kernel"
    return ""


def interpreting() -> bool:
    """Tell whether Triton runs in its interpreter, where kernels take CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def triton_is_here() -> bool:
    """Tell whether triton can be imported."""
    return importlib.util.find_spec("triton") is not None


def _choose_by_environment(operator: str, obstacle: str) -> Choice | None:
    for name in (f"TERCET_{operator.upper()}", "TERCET_KERNELS"):
        wish = os.environ.get(name, "auto")
        if wish not in PATHS:
            warn_once(f"{name} is {wish!r}; it is passed over: choose from {', '.join(PATHS)}")
        elif wish == "triton" and obstacle:
            warn_once(f"{name}=triton is passed over for {operator}: {obstacle}")
        elif wish != "auto":
            return Choice(wish, f"{name}={wish}")
    return None


@functools.lru_cache(maxsize=1000)
def warn_once(message: str) -> None:
    """Log a warning the first time that it comes up."""
    log.warning(message)
