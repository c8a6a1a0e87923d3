"""One Whisper in two layouts: transformers' names of its parameters and sizes, and openai-whisper's."""

from __future__ import annotations

from collections.abc import Mapping

# parts of a parameter's name: transformers', openai-whisper's
PARTS = (
    ("layers", "blocks"),
    ("self_attn", "attn"),
    ("encoder_attn", "cross_attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("embed_tokens", "token_embedding"),
    ("embed_positions.weight", "positional_embedding"),
)
# sizes: openai-whisper's ModelDimensions, transformers' WhisperConfig
SIZES = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
TIED = "proj_out.weight"  # in transformers; openai-whisper multiplies by the token embedding


def to_openai(name: str) -> str:
    """Give openai-whisper's name of a parameter of WhisperForConditionalGeneration."""
    return _replaced(name.removeprefix("model."), dict(PARTS))


def to_transformers(name: str) -> str:
    """Give transformers' name of a parameter of openai-whisper's Whisper."""
    return "model." + _replaced(name, {openai: ours for ours, openai in PARTS})


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    """Replace whole parts between dots: no part's new name is another part's old one, so their order is free."""
    dotted = f".{name}."
    for old, new in parts.items():
        dotted = dotted.replace(f".{old}.", f".{new}.")
    return dotted[1:-1]
