"""Turn a CTranslate2 Whisper into a folder that transformers loads. Runs as `python -m`, in a process of its own.

Shapes: D width of the model, V vocabulary. CTranslate2 stacks the projections of self attention as [q; k; v] (3D, D)
and those of cross attention as [k; v] (2D, D); transformers keeps them apart, and Whisper's keys have no bias.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercet.errors import ModelError
from tercet.models.ctranslate2 import Array, CTranslate2Model, read_model

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, Array]
ENGLISH_VOCABULARY = 51864  # the multilingual ones have one token more, or two (large-v3)


def convert(source: Path, target: Path) -> None:
    """Write `target` (safetensors, configuration, generation settings, processor) from `source`'s model.bin."""
    model = read_model(source / "model.bin")
    if model.spec != "WhisperSpec":
        raise ModelError(f"{source.name}: holds a {model.spec}; only WhisperSpec can be converted")
    if any(name.endswith("weight_scale") for name in model.tensors):
        raise ModelError(f"{source.name}: quantised weights can't be trained; name a float16 or float32 conversion")
    try:
        hints = json.loads((source / "config.json").read_text(encoding="utf-8"))
        _save(model, hints, source / "tokenizer.json", target)
    except KeyError as error:
        raise ModelError(f"{source.name}: the conversion needs {error}, which the files don't hold") from error


def _save(model: CTranslate2Model, hints: Mapping[str, Any], tokenizer_file: Path, target: Path) -> None:
    from transformers import WhisperForConditionalGeneration
    from transformers import WhisperTokenizerFast as Tokenizer

    whisper = WhisperForConditionalGeneration(_config(model.tensors))
    outcome = whisper.load_state_dict(state_dict(model.tensors), strict=False)
    # proj_out is tied to the token embedding, so it has no weights of its own
    if outcome.unexpected_keys or set(outcome.missing_keys) - {"proj_out.weight"}:
        raise ModelError(f"weights missing {outcome.missing_keys}, unexpected {outcome.unexpected_keys}")
    whisper.tie_weights()
    end = "<|endoftext|>"
    tokenizer = Tokenizer(
        tokenizer_file=str(tokenizer_file), unk_token=end, bos_token=end, eos_token=end, pad_token=end
    )
    save(whisper, tokenizer, hints, target)


def save(whisper: Any, tokenizer: Any, hints: Mapping[str, Any], target: Path) -> None:
    """Write a WhisperForConditionalGeneration with its generation settings and processor.

    `hints` says what CTranslate2's config.json does: lang_ids, suppress_ids, suppress_ids_begin, alignment_heads.
    """
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    whisper.generation_config = _generation_config(tokenizer, hints, whisper.config)
    whisper.save_pretrained(target)
    ears = WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins)
    WhisperProcessor(ears, tokenizer).save_pretrained(target)


def state_dict(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Rename and split CTranslate2's tensors into transformers' float32 state dict."""
    import torch

    parts = {name: value for side in ("encoder", "decoder") for name, value in _side(tensors, side)}
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in parts.items()}


def _side(tensors: Tensors, side: str) -> Iterator[tuple[str, Array]]:
    """Yield (transformers name, array) for the whole encoder or decoder."""
    home = f"model.{side}"
    if side == "encoder":
        yield from _linear(tensors, "encoder/conv1", f"{home}.conv1")
        yield from _linear(tensors, "encoder/conv2", f"{home}.conv2")
    else:
        yield f"{home}.embed_tokens.weight", tensors["decoder/embeddings/weight"]
    yield f"{home}.embed_positions.weight", tensors[f"{side}/position_encodings/encodings"]
    yield from _norm(tensors, f"{side}/layer_norm", f"{home}.layer_norm")
    for index in range(_count_layers(tensors, side)):
        yield from _layer(tensors, f"{side}/layer_{index}", f"{home}.layers.{index}", side)


def _layer(tensors: Tensors, source: str, target: str, side: str) -> Iterator[tuple[str, Array]]:
    attention = f"{source}/self_attention"
    yield from _stacked(tensors, f"{attention}/linear_0", f"{target}.self_attn", ("q", "k", "v"))
    yield from _linear(tensors, f"{attention}/linear_1", f"{target}.self_attn.out_proj")
    yield from _norm(tensors, f"{attention}/layer_norm", f"{target}.self_attn_layer_norm")
    if side == "decoder":
        cross = f"{source}/attention"
        yield from _linear(tensors, f"{cross}/linear_0", f"{target}.encoder_attn.q_proj")
        yield from _stacked(tensors, f"{cross}/linear_1", f"{target}.encoder_attn", ("k", "v"))
        yield from _linear(tensors, f"{cross}/linear_2", f"{target}.encoder_attn.out_proj")
        yield from _norm(tensors, f"{cross}/layer_norm", f"{target}.encoder_attn_layer_norm")
    yield from _linear(tensors, f"{source}/ffn/linear_0", f"{target}.fc1")
    yield from _linear(tensors, f"{source}/ffn/linear_1", f"{target}.fc2")
    yield from _norm(tensors, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")


def _linear(tensors: Tensors, source: str, target: str) -> Iterator[tuple[str, Array]]:
    yield f"{target}.weight", tensors[f"{source}/weight"]
    yield f"{target}.bias", tensors[f"{source}/bias"]


def _norm(tensors: Tensors, source: str, target: str) -> Iterator[tuple[str, Array]]:
    yield f"{target}.weight", tensors[f"{source}/gamma"]
    yield f"{target}.bias", tensors[f"{source}/beta"]


def _stacked(tensors: Tensors, source: str, target: str, parts: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    """Split projections that CTranslate2 stacked along the rows."""
    weight, bias = tensors[f"{source}/weight"], tensors[f"{source}/bias"]
    if weight.ndim != 2 or weight.shape[0] != len(parts) * weight.shape[1] or bias.shape != weight.shape[:1]:
        raise ModelError(f"{source}: weight {weight.shape} and bias {bias.shape} don't stack {len(parts)} projections")
    for part, rows, offset in zip(parts, np.split(weight, len(parts)), np.split(bias, len(parts)), strict=True):
        yield f"{target}.{part}_proj.weight", rows
        if part != "k":
            yield f"{target}.{part}_proj.bias", offset
        elif np.any(offset):
            raise ModelError(f"{source}: the keys have a bias; Whisper's have none")


def _count_layers(tensors: Tensors, side: str) -> int:
    prefix = f"{side}/layer_"
    heads = {name[len(prefix) :].split("/")[0] for name in tensors if name.startswith(prefix)}
    return len({head for head in heads if head.isdigit()})


def _config(tensors: Tensors) -> Any:
    from transformers import WhisperConfig

    vocabulary, width = tensors["decoder/embeddings/weight"].shape
    feed_forward = tensors["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=_count_layers(tensors, "encoder"),
        decoder_layers=_count_layers(tensors, "decoder"),
        encoder_attention_heads=int(tensors["encoder/num_heads"]),
        decoder_attention_heads=int(tensors["decoder/num_heads"]),
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        max_source_positions=tensors["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=tensors["decoder/position_encodings/encodings"].shape[0],
        num_mel_bins=tensors["encoder/conv1/weight"].shape[1],
        **special_tokens(vocabulary),
    )


def special_tokens(vocabulary: int) -> dict[str, int]:
    """Give the special tokens of a configuration."""
    end = 50256 if vocabulary == ENGLISH_VOCABULARY else 50257
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": end + 1}


def _generation_config(tokenizer: Any, hints: Mapping[str, Any], config: Any) -> Any:
    """Spell out what `generate` needs; the token numbers come from the tokenizer itself."""
    from transformers import GenerationConfig
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    def token(name: str) -> int:
        found = tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        if found is None or found == tokenizer.unk_token_id:
            raise ModelError(f"tokenizer.json: no token <|{name}|>; it isn't Whisper's")
        return int(found)

    named: dict[str, Any] = {"is_multilingual": config.vocab_size != ENGLISH_VOCABULARY}
    if named["is_multilingual"]:
        # 50259 is the first language; a language that the vocabulary lacks would fall on another token
        named["lang_to_id"] = {f"<|{code}|>": token(code) for code in list(LANGUAGES)[: len(hints["lang_ids"])]}
        named["task_to_id"] = {task: token(task) for task in ("transcribe", "translate")}
    return GenerationConfig(
        decoder_start_token_id=token("startoftranscript"),
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        prev_sot_token_id=token("startofprev"),
        no_timestamps_token_id=token("notimestamps"),
        return_timestamps=False,
        max_length=config.max_target_positions,
        begin_suppress_tokens=hints["suppress_ids_begin"],
        suppress_tokens=hints["suppress_ids"],
        alignment_heads=hints["alignment_heads"],
        **named,
    )


if __name__ == "__main__":
    from tercet.models.child import run_child

    sys.exit(run_child(convert))
