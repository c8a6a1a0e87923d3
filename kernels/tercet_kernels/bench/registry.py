"""Every case, in order of value: a run that is cut off has measured what matters most.

First the linears with the largest LoRA tax under dropout, then the filters, then torch.compile (minutes of its own),
then the same linears without dropout, the other models, and rank 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from tercet_kernels.bench.efficiency import gemm_cases
from tercet_kernels.bench.entries import Case
from tercet_kernels.bench.filter_cases import filter_cases
from tercet_kernels.bench.lora_cases import HEADLINES, OTHERS, TINY, LoraShape, lora_case
from tercet_kernels.bench.lora_providers import compiled_providers, lora_providers

RATE = 0.05
COMPILED = ("whisper-large-attn", "llama-8b-qo", "llama-8b-up")
SELF_TEST_DTYPES = (torch.bfloat16, torch.float32, torch.float16)
# awkward on purpose: no size is a multiple of a tile; ranks of a tile, below it and above, alone and in a group
SELF_TEST_SHAPES = (
    (LoraShape("ragged", 131, 200, (136,), has_bias=True), 16, RATE),
    (LoraShape("ragged-qkv", 131, 200, (136, 72, 72)), 8, RATE),
    (LoraShape("ragged-wide", 300, 136, (520,)), 32, 0.0),
)


def all_cases(device: torch.device, *, efficiency: bool = False) -> list[Case]:
    """List the cases for a device: real sizes on a GPU, tiny ones on a CPU, where only the machinery is proven."""
    if device.type == "cpu":
        return [*(gemm_cases(TINY, torch.float32, device) if efficiency else []), *_tiny(device)]
    dtype = torch.bfloat16
    cases = gemm_cases([*HEADLINES, *OTHERS], dtype, device) if efficiency else []
    cases += _lora(HEADLINES, 16, RATE, device)
    cases += filter_cases(device)
    cases += [
        lora_case(shape, 16, RATE, dtype, compiled_providers(device)) for shape in HEADLINES if shape.name in COMPILED
    ]
    cases += _lora(HEADLINES, 16, 0.0, device)
    cases += _lora(OTHERS, 16, RATE, device)
    cases += _lora(HEADLINES, 64, RATE, device)
    cases += _lora(OTHERS, 16, 0.0, device)
    return cases


def self_test_cases(device: torch.device) -> Iterator[Case]:
    """Yield a small case of every operator in each dtype, for parity alone; on a CPU, what an interpreter can do."""
    if device.type == "cpu":
        yield lora_case(TINY[1], 4, RATE, torch.float32, lora_providers(device, RATE))
        yield from filter_cases(device, tiny=True)
        return
    for dtype in SELF_TEST_DTYPES:
        for shape, rank, rate in SELF_TEST_SHAPES:
            yield lora_case(shape, rank, rate, dtype, lora_providers(device, rate))
        yield from filter_cases(device, tiny=True, dtype=dtype)


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """Return the cases whose name contains any of `only`; all where it is empty.

    Raises ValueError where none does.
    """
    found = [case for case in cases if not only or any(part in case.name for part in only)]
    if not found:
        raise ValueError(f"--only {' '.join(only)}: no case has that in its name; list them with --list")
    return found


def _lora(shapes: Sequence[LoraShape], rank: int, rate: float, device: torch.device) -> list[Case]:
    return [lora_case(shape, rank, rate, torch.bfloat16, lora_providers(device, rate)) for shape in shapes]


def _tiny(device: torch.device) -> list[Case]:
    dtype = torch.float32
    cases = [lora_case(shape, 4, RATE, dtype, lora_providers(device, RATE)) for shape in TINY]
    cases += filter_cases(device, tiny=True)
    return cases + [lora_case(shape, 4, 0.0, dtype, lora_providers(device, 0.0)) for shape in TINY]
