"""The training loop. Each step depends on its number alone, so a resumed run is the same run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import CorruptError, TercetError
from tercet.files import disk_error, write_atomically
from tercet.randomness import seed_for
from tercet.train.adapters import trainable
from tercet.train.task import Batches, Task

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
STEP = "step"


class TrainingFailed(TercetError):
    """The loss or its gradient became NaN or infinite."""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs of a recipe."""

    steps: int
    learning_rate: float
    warmup_fraction: float
    accumulate: int
    clip_norm: float
    checkpoint_every: int
    seed: int

    def rate(self, step: int) -> float:
        """Give the learning rate of a step: linear warm-up, then a cosine to zero."""
        warmup = max(1, round(self.warmup_fraction * self.steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


OnStep = Callable[[int, float], None]  # (steps done, loss)


def train(
    model: torch.nn.Module,
    task: Task,
    batches: Batches,
    settings: LoopSettings,
    folder: Path,
    on_step: OnStep,
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Train the adapter parameters of `model`; goes on from a checkpoint in `folder`. Returns the steps done.

    Raises:
        TrainingFailed: the loss isn't finite; the last checkpoint stays.
        CorruptError: the checkpoint is damaged, or another adapter's.
    """
    import torch

    torch.set_grad_enabled(True)  # a generator that yielded inside no_grad may have left it off
    parameters = trainable(model)
    optimiser = torch.optim.AdamW(list(parameters.values()), lr=settings.learning_rate, weight_decay=0.01)
    done = _restore(folder / CHECKPOINT, parameters, optimiser)
    _trim_log(folder / LOG, done)
    model.train()
    started = time.monotonic()
    for step in range(done, settings.steps):
        torch.manual_seed(seed_for(settings.seed, "", "dropout", step))
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step)
        total = 0.0
        for micro in range(settings.accumulate):
            loss = task.loss(model, batches.batch(step, micro)) / settings.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(list(parameters.values()), settings.clip_norm))
        _check_finite(step, total, norm, settings)
        optimiser.step()
        optimiser.zero_grad()
        done = step + 1
        seconds = round(time.monotonic() - started, 1)
        _log(folder / LOG, {"step": done, "loss": total, "norm": norm, "rate": settings.rate(step), "seconds": seconds})
        on_step(done, total)
        is_last = done == settings.steps or is_stopping()  # asked once: a step that ends the loop is kept
        if is_last or done % settings.checkpoint_every == 0:
            _checkpoint(folder / CHECKPOINT, parameters, optimiser, done)
        if is_last:
            break
    model.eval()
    return done


def steps_done(folder: Path) -> int:
    """Say how far the checkpoint in `folder` is, without torch; 0 when there is none.

    Raises:
        CorruptError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return int(file.get_tensor(STEP))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def restore(model: torch.nn.Module, folder: Path) -> None:
    """Put a checkpoint's adapter parameters into `model`; raises as `train` does."""
    import torch

    parameters = trainable(model)
    _restore(folder / CHECKPOINT, parameters, torch.optim.AdamW(list(parameters.values())))
    model.eval()


def _check_finite(step: int, loss: float, norm: float, settings: LoopSettings) -> None:
    for name, value in (("loss", loss), ("gradient's norm", norm)):
        if not math.isfinite(value):
            raise TrainingFailed(
                f"step {step}: the {name} is {value}; lower train.learning_rate (now {settings.learning_rate:g}) "
                f"and train again; the checkpoint before it is kept"
            )


def _log(path: Path, row: dict[str, float]) -> None:
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise disk_error(path, error) from error


def _trim_log(path: Path, done: int) -> None:
    """Drop the rows of steps that a killed training did after its checkpoint: they are done again."""
    if path.exists():
        kept = path.read_bytes().splitlines(keepends=True)[:done]  # a row per step; a torn one is the last
        write_atomically(path, b"".join(kept))


def _checkpoint(path: Path, parameters: dict[str, torch.Tensor], optimiser: Any, step: int) -> None:
    """Write parameters and optimiser state in one atomic file."""
    import torch
    from safetensors.torch import save

    state = {f"parameter/{name}": value.detach().contiguous() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, kept in optimiser.state[value].items():
            state[f"optimiser/{key}/{name}"] = kept.detach().contiguous()
    state[STEP] = torch.tensor(step)
    write_atomically(path, save(state))


def _restore(path: Path, parameters: dict[str, torch.Tensor], optimiser: Any) -> int:
    """Read a checkpoint back; 0 when there is none."""
    if not path.exists():
        return 0
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if {name for name in state if name.startswith("parameter/")} != {f"parameter/{name}" for name in parameters}:
        raise CorruptError(f"{path}: a checkpoint of another adapter; train again with: tercet train --fresh")
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(state[f"parameter/{name}"])
            found = {key.split("/")[1]: kept for key, kept in state.items() if key.endswith(f"/{name}")}
            optimiser.state[value] = {"step": found["step"]} | {  # AdamW keeps its count on the CPU, the rest not
                key: found[key].to(value.device) for key in ("exp_avg", "exp_avg_sq")
            }
    return int(state[STEP])


def _damaged(path: Path, error: Exception) -> CorruptError:
    return CorruptError(f"{path}: damaged checkpoint ({error}); train again with: tercet train --fresh")
