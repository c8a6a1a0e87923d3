"""An adapter as diffusers reads it: `pipeline.load_lora_weights(folder)`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tercet.errors import CorruptError
from tercet.files import write_atomically
from tercet.train.adapters import CONFIG, WEIGHTS

LAYOUT = "pytorch_lora_weights.safetensors"
PREFIX = "base_model.model."


def write_diffusers_layout(pipeline_class: Any, adapter: Path) -> None:
    """Write the adapter in `adapter` a second time, in the layout of the pipeline's own library.

    The adapter's scale (alpha over rank) goes into B: a reader that finds no alpha takes it for the rank.

    Raises:
        CorruptError: the adapter's configuration is damaged.
    """
    from diffusers.utils import state_dict_utils
    from safetensors.torch import load_file

    scale = _scale(adapter / CONFIG)
    layers: dict[str, dict[str, Any]] = {}
    for name, value in load_file(adapter / WEIGHTS).items():
        part, _, rest = name.removeprefix(PREFIX).partition(".")
        layers.setdefault(part, {})[rest] = value * scale if ".lora_B." in name else value
    convert: Any = state_dict_utils.convert_state_dict_to_diffusers  # untyped
    # its loader for transformers reads PEFT's own names alone, and drops half of an attention under the older ones
    given = {
        f"{part}_lora_layers": state if part == "transformer" else convert(state) for part, state in layers.items()
    }
    with tempfile.TemporaryDirectory(prefix="tercet-layout-") as folder:
        pipeline_class.save_lora_weights(folder, **given)
        write_atomically(adapter / LAYOUT, (Path(folder) / LAYOUT).read_bytes())


def _scale(path: Path) -> float:
    try:
        held = json.loads(path.read_bytes())
        rank = float(held["r"])
        return float(held["lora_alpha"]) / (rank**0.5 if held.get("use_rslora") else rank)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path}: not PEFT's configuration ({error}); restore it, or tercet train --fresh"
        ) from error
