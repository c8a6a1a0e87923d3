"""Put a saved adapter onto its base, with every doubt removed first: it may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import CorruptError, ModelError
from tercet.train.adapters import CONFIG, WEIGHTS, check, quiet_peft, read_card

if TYPE_CHECKING:
    import torch

MOST_UPDATE = 100.0  # an update so many times its weight (Frobenius norms) was never trained: most stay below 1
MOST_SHOWN = 3


def load(model: torch.nn.Module, folder: Path, base_digest: str | None = None) -> torch.nn.Module:
    """Put a saved adapter onto its base for inference.

    Every tensor must be finite, have a place and its shape, and change its weight by a sane amount. Without
    `base_digest` the caller has checked that the adapter belongs to the base.

    Raises:
        CorruptError: the files are damaged, or aren't what they are called.
        ModelError: the adapter belongs to another base.
    """
    check(folder, base_digest or read_card(folder)["base_digest"])
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    state = _read_weights(folder / WEIGHTS)
    config = _read_config(folder)
    try:
        with quiet_peft():
            wrapped: Any = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"{folder}: its targets are no modules of the base: {str(error)[:200]}") from error
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    _check_places(folder, state, expected)
    set_peft_model_state_dict(wrapped, state)
    _check_size(folder, wrapped)
    result: torch.nn.Module = wrapped.eval()
    return result


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:  # a pickle under this name, too
        raise CorruptError(f"{path}: not safetensors: {error}; restore it, or tercet train --fresh") from error
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise CorruptError(f"{path}: {name} holds NaN or infinity; train again with: tercet train --fresh")
    return state


def _read_config(folder: Path) -> Any:
    from peft import LoraConfig

    path = folder / CONFIG
    try:
        held = json.loads(path.read_bytes())
        if held.get("peft_type") != "LORA":
            raise ModelError(f"{path}: peft_type {held.get('peft_type')!r}; only LORA adapters can be loaded")
        held["base_model_name_or_path"] = None  # ours is at hand, and PEFT would warn that its name is another
        return LoraConfig.from_peft_type(**held)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptError(f"{path}: not PEFT's configuration ({error}); restore it") from error


def _check_places(folder: Path, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    strange, lacking = sorted(set(state) - set(expected)), sorted(set(expected) - set(state))
    for names, what in ((strange, "have no place in the base"), (lacking, "are missing")):
        if names:
            raise ModelError(f"{folder}: {len(names)} tensors {what}: {', '.join(names[:MOST_SHOWN])}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ModelError(
                f"{folder}: {name} is {list(value.shape)}, and rank and base make it {list(expected[name].shape)}; "
                "give the base that it was trained on"
            )


def _check_size(folder: Path, wrapped: Any) -> None:
    """Refuse an update out of all proportion, without computing B A: its norm follows from two small matrices."""
    import torch

    for name, module in wrapped.named_modules():
        if "default" not in getattr(module, "lora_A", {}):
            continue
        factors = (getattr(module, one)["default"].weight for one in ("lora_A", "lora_B"))
        a_RK, b_NR = (one.detach().flatten(1).double() for one in factors)
        squared = ((b_NR.T @ b_NR) * (a_RK @ a_RK.T)).sum().clamp_min(0)
        update = float(torch.sqrt(squared)) * abs(module.scaling["default"])
        weight = float(module.get_base_layer().weight.detach().norm())
        if update > MOST_UPDATE * weight:
            raise CorruptError(
                f"{folder}: the update of {name} is {update / max(weight, 1e-12):,.0f} times its weight; no training "
                "gives that: restore the adapter, or tercet train --fresh"
            )
