"""One training stage: a loss that depends on the step's number alone, AdamW, a moving average, and a checkpoint.

So a stage that was stopped goes on as if it never had been. Checkpoints are safetensors.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_EVERY = 100
SAVE_SECONDS = 120.0
WARM_UP = 200
DECAY_SHARE = 0.3  # of the steps, the last, bring the learning rate to zero


@dataclass
class Stage:
    """A stage's modules, its loss and its settings."""

    name: str
    module: Any  # torch.nn.Module
    losses: Callable[[int], dict[str, Any]]  # step -> scalar tensors by name, which are added up
    steps: int
    learning_rate: float
    ema: float = 0.998

    def rate(self, step: int) -> float:
        """Give the learning rate at a step: warm up, stay, fall to zero."""
        left = (self.steps - step) / max(1.0, DECAY_SHARE * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / WARM_UP, left)


def run_stage(stage: Stage, folder: Path, deadline: float) -> bool:
    """Train from the last checkpoint on, until the stage or the time (`time.monotonic`) ends; say whether it is done.

    Afterwards the stage's module holds the moving average.
    """
    import torch

    weights = list(stage.module.parameters())
    average = [one.detach().clone() for one in weights]
    optimizer = torch.optim.AdamW(weights, stage.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    path = folder / f"{stage.name}.safetensors"
    step = _load(path, weights, average, optimizer) if path.is_file() else 0
    began = saved = time.monotonic()
    first, seen, since = step, Counter[str](), step
    stage.module.train()
    while step < stage.steps and time.monotonic() < deadline:
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step)
        losses = stage.losses(step)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        decay = min(stage.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [one.detach() for one in weights], 1 - decay)
        seen.update({name: loss.item() for name, loss in losses.items()})
        step += 1
        if step % LOG_EVERY == 0:
            means = {name: round(total / (step - since), 5) for name, total in seen.items()}
            _report(stage, step, means, (time.monotonic() - began) / (step - first), folder)
            seen.clear()
            since = step
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(path, step, weights, average, optimizer)
            saved = time.monotonic()
    if step > first:
        _save(path, step, weights, average, optimizer)
    with torch.no_grad():
        for one, mean in zip(weights, average, strict=True):
            one.copy_(mean)
    stage.module.eval()
    return step >= stage.steps


def _report(stage: Stage, step: int, means: Mapping[str, float], seconds: float, folder: Path) -> None:
    if not math.isfinite(sum(means.values())):
        raise ValueError(f"stage {stage.name}, step {step}: the loss isn't finite; lower its learning rate")
    log(
        folder,
        stage=stage.name,
        step=step,
        **means,
        rate=round(stage.rate(step), 7),
        seconds_per_step=round(seconds, 3),
    )


def log(folder: Path, **fields: Any) -> None:
    """Append one line to the training log."""
    line = json.dumps(fields)
    print(line, flush=True)
    with open(folder / "training-log.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _save(path: Path, step: int, weights: list[Any], average: list[Any], optimizer: Any) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"step": torch.tensor(step)}
    for at, (one, mean) in enumerate(zip(weights, average, strict=True)):
        state = optimizer.state[one]
        tensors |= {f"weight.{at}": one.detach().contiguous(), f"average.{at}": mean.contiguous()}
        tensors |= {f"{name}.{at}": state[name].contiguous() for name in ("exp_avg", "exp_avg_sq")}
    aside = path.with_suffix(".new")
    save_file(tensors, aside)
    aside.replace(path)


def _load(path: Path, weights: list[Any], average: list[Any], optimizer: Any) -> int:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    step = int(tensors["step"])
    with torch.no_grad():
        for at, (one, mean) in enumerate(zip(weights, average, strict=True)):
            one.copy_(tensors[f"weight.{at}"])
            mean.copy_(tensors[f"average.{at}"])
            state = {name: tensors[f"{name}.{at}"] for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[one] = {"step": torch.tensor(float(step)), **state}
    return step
