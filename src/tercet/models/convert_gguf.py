"""Turn a GGUF Llama into a folder that transformers loads and peft can tune. Runs as `python -m`, on its own.

`save_pretrained` refuses a model that was loaded from GGUF, so its weights move into a fresh LlamaForCausalLM.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tercet.errors import ModelError

FILE = "model.gguf"


def convert(source: Path, target: Path) -> None:
    """Write `target` (bf16 safetensors, tokenizer with its chat template) from `source`'s model.gguf."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), gguf_file=FILE)
        loaded = AutoModelForCausalLM.from_pretrained(str(source), gguf_file=FILE, dtype=torch.float32)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{FILE}: transformers can't read it: {error}") from error
    if loaded.config.model_type != "llama":
        raise ModelError(f"{FILE}: architecture {loaded.config.model_type!r}; only llama can be converted")
    settings = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    settings["dtype"] = "bfloat16"
    fresh = LlamaForCausalLM(LlamaConfig(**settings))
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    fresh.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    from tercet.models.child import run_child

    sys.exit(run_child(convert))
