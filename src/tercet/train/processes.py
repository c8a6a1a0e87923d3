"""One training in one process or many: the same rows, the same sums, one writer.

Each process takes its share of a step's micro-batches; the adapter's gradients, a few megabytes, are summed once a
step. So a model needs no wrapper, and the number of processes changes nothing but the order of a sum.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tercet.compat import prepare_torchaudio
from tercet.errors import UsageError

if TYPE_CHECKING:
    import torch


def num_processes() -> int:
    """Count the processes that torchrun or accelerate's launcher started, without torch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Say whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


class Processes:
    """A process among those of the training, with accelerate underneath: its device, its precision, its sums.

    Constructing it raises a UsageError where this device can't train in `precision` ("fp32", "bf16" or "fp16").
    """

    def __init__(self, precision: str) -> None:
        prepare_torchaudio()
        import torch
        from accelerate import Accelerator

        has_gpu = torch.cuda.is_available()
        if precision == "fp16" and not has_gpu:
            raise UsageError("train.precision: fp16 needs a GPU; set bf16 or fp32")
        if precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError("train.precision: this GPU has no bf16; set fp16 or fp32")
        self.precision = precision
        self.accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision))
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process

    def autocast(self) -> Any:
        """Give the context in which a loss or an answer is computed."""
        return self.accelerator.autocast()

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def any(self, mine: bool) -> bool:  # noqa: FBT001 - a plain fact
        """Say whether it is so in any process."""
        return self.sum([float(mine)])[0] > 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Sum numbers over all processes."""
        found = list(values)
        if self.count == 1:
            return found
        import torch

        total = torch.tensor(found, dtype=torch.float64, device=self.accelerator.device)
        return [float(value) for value in self.accelerator.reduce(total, "sum")]

    def share(self, value: Any) -> Any:
        """Give every process the main one's value."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Sum every parameter's gradient over all processes, in one message; none counts as zeros."""
        if self.count == 1:
            return
        import torch

        held = list(parameters)
        for value in held:
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        gradients = [value.grad for value in held if value.grad is not None]
        flat = self.accelerator.reduce(torch.cat([one.flatten() for one in gradients]), "sum")
        for one, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            one.copy_(part.view_as(one))
