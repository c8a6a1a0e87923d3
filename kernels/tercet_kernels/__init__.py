"""Fused LoRA and batched filtering: Triton kernels, each beside its definition in plain torch.

Importing this package needs torch alone. Triton, peft and the CPU libraries are imported by the call that uses them,
and a machine without a GPU runs the same mathematics through the best available library.
"""

from __future__ import annotations

from tercet_kernels.dispatch import Choice, choose_path

__all__ = ["Choice", "choose_path"]
__version__ = "0.1.0"
