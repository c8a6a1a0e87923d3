"""One training in one process or many: the same rows, the same sums, one writer.

Each process takes its share of a step's micro-batches; the adapter's gradients, a few megabytes, are summed once a
step. So a model needs no wrapper, and the number of processes changes nothing but the order of a sum.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from contextlib import nullcontext
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
        from accelerate import PartialState

        has_gpu = torch.cuda.is_available()
        if precision == "fp16" and not has_gpu:
            raise UsageError("train.precision: fp16 needs a GPU; set bf16 or fp32")
        if precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError("train.precision: this GPU has no bf16; set fp16 or fp32")
        if torch.distributed.is_available():
            # its functions default to the group there is when they are defined, and then no one can end that group
            import torch.distributed.nn.functional
        # not an Accelerator: its precision is one for the whole life of a process, and a notebook trains twice
        self.state = PartialState(cpu=not torch.accelerator.is_available())
        # while the interpreter still lives: gloo's threads, left to its end, now and then abort the process
        atexit.register(self.state.destroy_process_group)
        self.rank, self.count = self.state.process_index, self.state.num_processes
        self.is_main: bool = self.state.is_main_process
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler("cuda") if precision == "fp16" else None  # small gradients vanish in fp16

    def autocast(self) -> Any:
        """Give the context in which a loss or an answer is computed."""
        import torch

        return torch.autocast(self.state.device.type, self.dtype) if self.dtype else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradient to that of the parameters."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, or none where fp16 overflowed: the scale is lowered then."""
        if self.scaler:
            self.scaler.step(optimiser)
            self.scaler.update()
        else:
            optimiser.step()
        optimiser.zero_grad()

    def wait(self) -> None:
        """Wait until every process is here."""
        self.state.wait_for_everyone()

    def any(self, mine: bool) -> bool:  # noqa: FBT001 - a plain fact
        """Say whether it is so in any process."""
        return self.sum([float(mine)])[0] > 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Sum numbers over all processes."""
        found = list(values)
        if self.count == 1:
            return found
        import torch
        from accelerate.utils import reduce

        total = torch.tensor(found, dtype=torch.float64, device=self.state.device)
        return [float(value) for value in reduce(total, "sum")]

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
        from accelerate.utils import reduce

        held = list(parameters)
        for value in held:
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        gradients = [value.grad for value in held if value.grad is not None]
        flat = reduce(torch.cat([one.flatten() for one in gradients]), "sum")
        for one, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            one.copy_(part.view_as(one))
