"""Checkpoints: parameters, optimiser and the loop's own state in one safetensors file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import CorruptError
from tercet.files import write_atomically

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.safetensors"
STATE = "state"  # key of the file's metadata: the loop's state as JSON
PARAMETER, OPTIMISER, BEST = "parameter/", "optimiser/", "best/"
AGAIN = "train again with: tercet train --fresh"


def write(
    path: Path,
    parameters: Mapping[str, torch.Tensor],
    optimiser: Any,
    state: Mapping[str, Any],
    best: Mapping[str, torch.Tensor],
) -> None:
    """Write a checkpoint; `state` is JSON values, `best` the parameters that decoded best so far, if any."""
    from safetensors.torch import save

    tensors = {PARAMETER + name: value for name, value in parameters.items()}
    for name, value in parameters.items():
        tensors |= {f"{OPTIMISER}{key}/{name}": kept for key, kept in optimiser.state[value].items()}
    tensors |= {BEST + name: value for name, value in best.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(plain, {STATE: json.dumps(dict(state))}))


@dataclass(frozen=True)
class Reached:
    """How far a training is: steps done, whether it stopped early, and the step whose adapter decoded best so far."""

    steps: int = 0
    is_over: bool = False
    best: int = 0  # the last one where nothing is decoded


def reached(folder: Path) -> Reached:
    """Say how far the checkpoint in `folder` is, without torch; nowhere when there is none.

    Raises:
        CorruptError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return Reached()
    state = _read_state(path)
    return Reached(state["step"], state["is_over"], state.get("watch", {}).get("best_step", state["step"]))


def read(
    path: Path, parameters: Mapping[str, torch.Tensor], optimiser: Any, pin: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Put a checkpoint into parameters and optimiser; return the loop's state and the best parameters in it.

    `pin` names what the training depends on: a checkpoint of another one is refused.

    Raises:
        CorruptError: the checkpoint is damaged, or was written by another training.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = _read_state(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    held = {name.removeprefix(PARAMETER): value.shape for name, value in tensors.items() if name.startswith(PARAMETER)}
    if state.get("pin") != pin or held != {name: value.shape for name, value in parameters.items()}:
        raise CorruptError(f"{path}: a checkpoint of another training; put it back where it came from, or {AGAIN}")
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[PARAMETER + name])
            found = {
                key.split("/")[1]: kept
                for key, kept in tensors.items()
                if key.startswith(OPTIMISER) and key.endswith(f"/{name}")
            }
            optimiser.state[value] = {  # AdamW keeps its count on the CPU, the rest beside the parameter
                key: kept if key == "step" else kept.to(value.device) for key, kept in found.items()
            }
    return state, {name.removeprefix(BEST): kept for name, kept in tensors.items() if name.startswith(BEST)}


def _read_state(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})[STATE])
            int(state["step"]), bool(state["is_over"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    return state


def _damaged(path: Path, error: Exception) -> CorruptError:
    return CorruptError(f"{path}: damaged checkpoint ({error}); {AGAIN}")
