"""Write a tuned Whisper for its users: merged, for transformers and for `whisper.load_model`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.files import disk_error, fsync_folder
from tercet.models.openai_names import SIZES, TIED, to_openai

if TYPE_CHECKING:
    import torch

WHISPER_FILE = "whisper.pt"


def export(model: Any, base: Path, adapter: Path, out: Path) -> None:
    """Merge `adapter` into `model` and write both layouts into `out`.

    Raises:
        ModelError: the adapter belongs to another base, or is damaged.
        StoreError: `out` can't be written.
    """
    from tercet.train.adapters import read_card
    from tercet.train.loading import load
    from tercet_audio.transcribe import load_processor

    wrapped: Any = load(model, adapter, read_card(adapter)["base_digest"])
    merged = wrapped.merge_and_unload()
    try:
        out.mkdir(parents=True, exist_ok=True)
        merged.save_pretrained(out)
        load_processor(base).save_pretrained(out)
        save_for_whisper(merged, out / WHISPER_FILE)
        fsync_folder(out)
    except OSError as error:
        raise disk_error(out, error) from error


def save_for_whisper(model: Any, path: Path) -> None:
    """Write the file that `whisper.load_model(path)` reads: its own layout, which only `torch.save` writes."""
    import torch

    sizes = {openai: getattr(model.config, ours) for openai, ours in SIZES.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save({"dims": sizes, "model_state_dict": whisper_names(model.state_dict())}, temporary)
    os.replace(temporary, path)


def whisper_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename transformers' parameters to openai-whisper's."""
    return {to_openai(name): value.detach().cpu().contiguous() for name, value in state.items() if name != TIED}
