"""Write a tuned Whisper for its users: merged, for transformers and for `whisper.load_model`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.files import disk_error, fsync_folder

if TYPE_CHECKING:
    import torch

WHISPER_FILE = "whisper.pt"
# transformers' names -> openai-whisper's, in this order
RENAMED = (
    ("model.", ""),
    ("layers.", "blocks."),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn.", "cross_attn."),
    ("self_attn.", "attn."),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("embed_tokens", "token_embedding"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("encoder.embed_positions.weight", "encoder.positional_embedding"),
    ("decoder.embed_positions.weight", "decoder.positional_embedding"),
)


def export(model: Any, base: Path, adapter: Path, out: Path) -> None:
    """Merge `adapter` into `model` and write both layouts into `out`.

    Raises:
        ModelError: the adapter belongs to another base, or is damaged.
        StoreError: `out` can't be written.
    """
    from tercet.train.adapters import load, read_card
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

    temporary = path.with_name(f".{path.name}.tmp")
    torch.save({"dims": dimensions(model.config), "model_state_dict": whisper_names(model.state_dict())}, temporary)
    os.replace(temporary, path)


def whisper_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename transformers' parameters to openai-whisper's; the output projection is the token embedding there."""
    renamed = {}
    for name, value in state.items():
        if name == "proj_out.weight":
            continue
        for old, new in RENAMED:
            name = name.replace(old, new)  # noqa: PLW2901 - a name is built step by step
        renamed[name] = value.detach().cpu().contiguous()
    return renamed


def dimensions(config: Any) -> dict[str, int]:
    """Give openai-whisper's ModelDimensions."""
    return {
        "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }
