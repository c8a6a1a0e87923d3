"""LoRA adapters in PEFT's own modules and files, with what they were trained on written beside them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import CorruptError, ModelError, UsageError
from tercet.files import fsync_folder, write_atomically
from tercet.recipe import Adapter

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "tercet.json"  # base digest, licence, recipe and data digests
CARD_KEYS = ("base", "base_digest", "weights")  # what we can't do without


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Hide that PEFT 0.21 asks transformers 5.23 for a name it will drop: nothing a user of ours can mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def attach(model: torch.nn.Module, adapter: Adapter, targets: str, kernels: str = "peft") -> torch.nn.Module:
    """Wrap `model` with a fresh LoRA adapter; only its parameters need gradients.

    `kernels` "auto" and "fused" compute its layers by `tercet_kernels`, "peft" leaves them to PEFT.

    Raises:
        ModelError: the targets fit no module, or "fused" covers none of the layers.
    """
    from tercet.compat import prepare_torchaudio

    prepare_torchaudio()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or 2 * adapter.rank,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        target_modules=adapter.targets or targets,
    )
    try:
        with quiet_peft():
            wrapped: torch.nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"train.adapter.targets: {config.target_modules!r} fits no module of the base") from error
    if kernels != "peft":
        from tercet_kernels.peft import fuse

        if not fuse(wrapped) and kernels == "fused":
            raise ModelError("train.kernels: fused covers no LoRA layer of this base; set auto or peft")
    return wrapped


def as_base(model: Any) -> Any:
    """Give the context in which a model with an adapter answers as its base."""
    return model.disable_adapter()


def checkpoint_activations(model: Any) -> None:
    """Let the base compute its activations a second time in the backward pass, and keep fewer of them.

    Raises:
        ModelError: the base has no such thing.
    """
    base = model.get_base_model()
    if hasattr(base, "activation_checkpointing_enable"):  # transformers
        base.activation_checkpointing_enable({"use_reentrant": False})
    elif hasattr(base, "gradient_checkpointing_enable"):  # transformers below 5.23
        base.gradient_checkpointing_enable({"use_reentrant": False})
    elif hasattr(base, "enable_gradient_checkpointing"):  # diffusers
        base.enable_gradient_checkpointing()
    else:
        raise ModelError(f"train.activation_checkpointing: {type(base).__name__} can't; set false")


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's parameters by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def save(
    model: Any,
    folder: Path,
    card: Mapping[str, Any],
    scale: float = 1.0,
    complete: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> str:
    """Write the adapter in PEFT's format, scaled by `scale` (folded into B, so that every reader sees it).

    Its card comes last: an adapter that has one is whole. `complete` is called before, with what the card will say, to
    write whatever else belongs to the adapter. Returns the digest of the weights file.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value * scale if _is_scaled(name) else value).detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    data = to_bytes(state, {"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config |= {"inference_mode": True, "base_model_name_or_path": card.get("base", "")}
    config["target_modules"] = (
        config["target_modules"] if isinstance(config["target_modules"], str) else sorted(config["target_modules"])
    )
    text = json.dumps(config, indent=1, sort_keys=True, default=lambda value: getattr(value, "value", str(value)))
    write_atomically(folder / WEIGHTS, data)
    write_atomically(folder / CONFIG, text.encode())
    whole = {**card, "weights": hashlib.sha256(data).hexdigest()}
    complete(whole)
    write_atomically(folder / CARD, json.dumps(whole, indent=1, sort_keys=True).encode())
    fsync_folder(folder)
    return str(whole["weights"])


def _is_scaled(name: str) -> bool:
    """Say whether a tensor is one that an adapter's scale is folded into."""
    return ".lora_B." in name or ".lora_embedding_B" in name


def read_card(folder: Path) -> dict[str, Any]:
    """Read what an adapter was trained on.

    Raises:
        ModelError: there is no adapter of ours in `folder`.
        CorruptError: what stands there is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: no adapter here ({CARD} is missing); train one with: tercet train") from error
    except OSError as error:
        raise ModelError(f"{folder}: no adapter's folder that can be read: {error.strerror}; name another") from error
    except ValueError as error:
        raise CorruptError(f"{folder / CARD}: not JSON: {error}; train again with: tercet train --fresh") from error
    missing = [name for name in CARD_KEYS if not isinstance(card, dict) or name not in card]
    if missing:
        raise CorruptError(f"{folder / CARD}: lacks {', '.join(missing)}; train again with: tercet train --fresh")
    found: dict[str, Any] = card
    return found


def check(folder: Path, base_digest: str) -> None:
    """Refuse an adapter that is damaged or was trained on another base.

    Raises:
        CorruptError: the weights differ from their digest.
        ModelError: the adapter belongs to another base model, or isn't safetensors.
    """
    card = read_card(folder)
    if card["base_digest"] != base_digest:
        raise ModelError(
            f"{folder}: trained on {card['base']} (digest {card['base_digest']}); the base here is {base_digest}: "
            "give the same base in train.base"
        )
    try:
        found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: {WEIGHTS} is missing; train again with: tercet train --fresh") from error
    if found != card["weights"]:
        raise CorruptError(
            f"{folder / WEIGHTS}: digest {found}, written as {card['weights']}; restore it, or tercet train --fresh"
        )
    rank(folder)


def rank(folder: Path) -> int:
    """Read an adapter's rank out of PEFT's own file.

    Raises:
        CorruptError: that file is missing or damaged.
    """
    path = folder / CONFIG
    try:
        return int(json.loads(path.read_bytes())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path}: not PEFT's configuration ({error}); restore it, or tercet train --fresh"
        ) from error


def rescale(folder: Path, out: Path, scale: float) -> None:
    """Write the adapter in `folder` to `out` at another scale; 1 is as it was trained.

    Raises:
        UsageError: it is a DoRA adapter, whose norm each scale would change.
        CorruptError: its card says no scale.
    """
    from safetensors.numpy import load_file
    from safetensors.numpy import save as to_bytes

    card = read_card(folder)
    if json.loads((folder / CONFIG).read_bytes()).get("use_dora"):
        raise UsageError(f"{folder}: a DoRA adapter can't be scaled after training; leave out --scale")
    try:
        factor = scale / card["scale"]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CorruptError(f"{folder / CARD}: no scale above 0 in it; restore it, or tercet train --fresh") from error
    state = {
        name: value * value.dtype.type(factor) if _is_scaled(name) else value
        for name, value in load_file(folder / WEIGHTS).items()
    }
    data = to_bytes(state, {"format": "pt"})
    card |= {"scale": scale, "weights": hashlib.sha256(data).hexdigest()}
    write_atomically(out / WEIGHTS, data)
    write_atomically(out / CONFIG, (folder / CONFIG).read_bytes())
    write_atomically(out / CARD, json.dumps(card, indent=1, sort_keys=True).encode())
