"""Which path a LoRA group takes: the Triton steps, or those in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.dispatch import Choice, choose_path
from tercet_kernels.lora.eager import STEPS as EAGER
from tercet_kernels.lora.member import Member, Steps

MAX_FUSED_RANK = 64
MAX_FUSED_RANK_SM_90 = 128  # above it LoRA is a tenth of the work and a plain product of A and B wins (kernels.md A5.5)
MAX_FUSED_RANK_FP32 = 16  # exact fp32 products don't run on tensor cores, and larger tiles spill
MIN_FUSED_ROWS = 64


def choose(x_MK: Tensor, members: Sequence[Member], path: str = "auto") -> Choice:
    """Choose the path of a group; ranks and sizes that the kernels don't serve well go to plain torch."""
    choice = choose_path("lora", x_MK, path)
    if not choice.is_triton:
        return choice
    if not x_MK.shape[0]:
        return Choice("torch", "an empty batch")
    most = MAX_FUSED_RANK_SM_90 if path == "triton" else most_fused_rank(x_MK)
    largest = max(member.rank for member in members)
    if largest > most:
        return Choice("torch", f"rank {largest} is above {most}")
    if path == "auto" and x_MK.shape[0] < MIN_FUSED_ROWS:
        return Choice("torch", f"{x_MK.shape[0]} rows: the launches would cost more than the work")
    return choice


def most_fused_rank(x: Tensor) -> int:
    """Return the highest rank that ships for x's dtype and GPU: what compiles there without a spill."""
    if x.element_size() == 4:
        return MAX_FUSED_RANK_FP32
    newer = x.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(x.device)[0] in {9, 10}
    return MAX_FUSED_RANK_SM_90 if newer else MAX_FUSED_RANK


def steps_for(choice: Choice) -> Steps:
    """Return the steps of a path."""
    if not choice.is_triton:
        return EAGER
    from tercet_kernels.lora.launch import STEPS  # triton may be absent

    return STEPS
