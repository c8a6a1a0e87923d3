"""Turn openai-whisper's `.pt` into a folder that transformers loads. Runs as `python -m`, in a process of its own.

The only place that calls `torch.load`, and it lets nothing but tensors and plain values through. Weights become fp32,
as those of the other converters: the same model by another way then has the same bytes, and is known as the judge.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import ModelError
from tercet.models.convert_whisper import ENGLISH_VOCABULARY, save, special_tokens
from tercet.models.openai_names import SIZES, TIED, to_openai, to_transformers

if TYPE_CHECKING:
    import torch

MULTILINGUAL_VOCABULARIES = (51865, 51866)  # large-v3 has a hundredth language
MAX_LAYERS = 64  # large has 32
WRITE = "save the model as openai-whisper does: torch.save({'dims': ..., 'model_state_dict': ...}, path)"


def convert(source: Path, target: Path) -> None:
    """Write `target` (safetensors, configuration, generation settings, processor) from the file `source`.

    Raises:
        ModelError: it isn't a checkpoint of openai-whisper's, or its parts don't belong together.
        MissingExtra: openai-whisper, whose vocabulary is needed, isn't installed.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    from tercet.models.whisper_tokenizer import build, suppressed

    sizes, state = read_checkpoint(source)
    config = _config(sizes, source.name)
    with torch.device("meta"):
        whisper = WhisperForConditionalGeneration(config)
    _check(state, {to_openai(name): value for name, value in whisper.state_dict().items() if name != TIED}, source.name)
    weights = {to_transformers(name): value.float().contiguous() for name, value in state.items()}
    weights[TIED] = weights["model.decoder.embed_tokens.weight"]
    whisper.load_state_dict(weights, assign=True)
    whisper.tie_weights()
    num_languages = config.vocab_size - 51765 - (config.vocab_size != ENGLISH_VOCABULARY)
    tokenizer = build(is_multilingual=config.vocab_size != ENGLISH_VOCABULARY, num_languages=num_languages)
    layers = range(config.decoder_layers // 2, config.decoder_layers)
    hints = {
        "lang_ids": range(num_languages),
        "suppress_ids": suppressed(tokenizer),
        "suppress_ids_begin": [*tokenizer(" ", add_special_tokens=False).input_ids, config.eos_token_id],
        # openai-whisper's own choice for a file that isn't one of its releases
        "alignment_heads": [[layer, head] for layer in layers for head in range(config.decoder_attention_heads)],
    }
    save(whisper, tokenizer, hints, target)


def read_checkpoint(path: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Read `dims` and `model_state_dict`.

    Raises:
        ModelError: the file holds anything else.
    """
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file may raise anything; torch's advice is to trust it
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f"it asks for {asked[1]}" if asked else type(error).__name__
        raise ModelError(f"{path.name}: not a file of tensors and plain values alone ({found}); {WRITE}") from error
    parts = [held.get(name) if isinstance(held, dict) else None for name in ("dims", "model_state_dict")]
    sizes, state = parts
    if not isinstance(sizes, dict) or not isinstance(state, dict):
        names = ", ".join(sorted(map(str, held))[:5]) if isinstance(held, dict) else type(held).__name__
        raise ModelError(f"{path.name}: no dims and model_state_dict in it, but {names or 'nothing'}; {WRITE}")
    strangers = [name for name, value in state.items() if not _is_weight(name, value)]
    if strangers:
        raise ModelError(f"{path.name}: model_state_dict: {strangers[0]!r} is no tensor of floats; {WRITE}")
    return sizes, state


def _is_weight(name: Any, value: Any) -> bool:
    import torch

    return isinstance(name, str) and isinstance(value, torch.Tensor) and value.is_floating_point()


def _config(sizes: Mapping[str, Any], name: str) -> Any:
    from transformers import WhisperConfig

    if set(sizes) != set(SIZES):
        different = ", ".join(sorted(set(map(str, sizes)) ^ set(SIZES)))
        raise ModelError(f"{name}: dims: not openai-whisper's ten sizes: {different}; {WRITE}")
    for size, value in sizes.items():
        limit = MAX_LAYERS if size.endswith("_layer") else 1 << 20
        if not isinstance(value, int) or not 1 <= value <= limit:
            raise ModelError(f"{name}: dims: {size} is {value!r}; it must lie between 1 and {limit}")
    known = (ENGLISH_VOCABULARY, *MULTILINGUAL_VOCABULARIES)
    if sizes["n_vocab"] not in known:
        raise ModelError(f"{name}: dims: n_vocab is {sizes['n_vocab']}; Whisper has {', '.join(map(str, known))}")
    if sizes["n_audio_state"] != sizes["n_text_state"]:
        raise ModelError(f"{name}: dims: n_audio_state {sizes['n_audio_state']} isn't n_text_state")
    for size in ("n_audio_head", "n_text_head"):
        if sizes["n_text_state"] % sizes[size]:
            raise ModelError(f"{name}: dims: {size} is {sizes[size]}; it doesn't divide {sizes['n_text_state']}")
    feed_forward = 4 * sizes["n_text_state"]
    return WhisperConfig(
        **{ours: sizes[openai] for openai, ours in SIZES.items()},
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        **special_tokens(sizes["n_vocab"]),
    )


def _check(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], name: str) -> None:
    """Hold names and shapes against what the sizes ask for, before anything as large as a shape says is made."""
    for what, different in (("misses", set(wanted) - set(state)), ("holds the unknown", set(state) - set(wanted))):
        if different:
            shown = ", ".join(sorted(different)[:3])
            raise ModelError(f"{name}: model_state_dict {what} {shown} ({len(different)} in all); {WRITE}")
    for one in sorted(wanted):
        found, asked = tuple(state[one].shape), tuple(wanted[one].shape)
        if found != asked:
            raise ModelError(f"{name}: model_state_dict: {one} has shape {found}; dims ask for {asked}")


if __name__ == "__main__":
    from tercet.models.child import run_child

    sys.exit(run_child(convert))
