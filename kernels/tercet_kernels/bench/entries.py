"""What a benchmark is made of: a case is one operator at one shape, its providers compete on the same arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tercet_kernels.dispatch import triton_is_here, why_not_triton

Call = Callable[[], object]
MODES = ("step", "forward", "backward", "call")


@dataclass(frozen=True)
class Parity:
    """How far a provider's result is from the reference, the bar it must keep, and which result was the worst."""

    error: float
    bar: float
    what: str = ""

    @property
    def holds(self) -> bool:
        """Tell whether the error keeps the bar; NaN doesn't."""
        return self.error <= self.bar


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    `check` compares a result with the reference; `build` returns what is timed, by mode, for one copy of the
    arguments. `obstacle` says why it can't run here, `captures` whether a CUDA graph can hold it (nothing in it may
    wait for the device).
    """

    name: str
    check: Callable[[Any], Parity]
    build: Callable[[Any], Mapping[str, Call]]
    obstacle: str = ""
    captures: bool = True


@dataclass(frozen=True)
class Traffic:
    """The byte model of one provider in one mode: bytes moved at least, and those beyond what the baseline moves.

    `extra` is None where the provider isn't measured against a baseline of its own operator.
    """

    moved: int
    extra: int | None = None


@dataclass(frozen=True)
class Case:
    """One operator at one shape: `arguments(device, seed)` makes one copy of what every provider gets.

    `m`, `k`, `n` are rows, inputs, outputs of a product; what they count elsewhere is in docs/kernels-bench.md.
    `traffic` gives a provider's byte model in a mode, None where there is none. `flops` is the arithmetic of a mode.
    """

    operator: str
    shape: str
    m: int
    k: int
    n: str
    dtype: torch.dtype
    arguments: Callable[[torch.device, int], Any]
    providers: tuple[Provider, ...]
    baseline: str
    rank: int = 0
    dropout: float = 0.0
    traffic: Callable[[str, str], Traffic | None] = lambda _provider, _mode: None
    flops: Mapping[str, float] = field(default_factory=dict)
    argument_bytes: int = 0

    @property
    def name(self) -> str:
        """Name the case, as `--only` and `--list` do: operator/shape/dtype, and the rank and dropout of LoRA."""
        parts = [self.operator, self.shape, dtype_name(self.dtype)]
        if self.rank:
            parts += [f"r{self.rank}", f"p{self.dropout:g}"]
        return "/".join(parts)


def triton_obstacle(device: torch.device) -> str:
    """Say what keeps Triton from a device, which needn't be there for a list of cases; empty where nothing does."""
    if device.type == "cuda":
        return "" if triton_is_here() else "triton isn't installed; run: pip install triton"
    return why_not_triton(torch.empty(0, device=device))


def dtype_name(dtype: torch.dtype) -> str:
    """Return "bfloat16" for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")
