"""Make tiny random models under the names that PEFT's tests ask the model hub for, laid out as the hub's own cache.

The real ones can't be reached here. A test that needs trained weights, a name that isn't in `MODELS`, or the real
sizes fails as it would without this; with and without fusing alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

COMMIT = "0" * 40
WORDS = 320  # 256 bytes and the special tokens, rounded up
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

OPT = {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 4, "ffn_dim": 24, "word_embed_proj_dim": 16}
GPT = {"n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 512}
LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = LLAMA | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "sliding_window": 64}
BERT = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 37}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0}
BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "decoder_start_token_id": 2,
}  # fmt: skip

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name: model, configuration, sizes
    "peft-internal-testing/opt-125m": ("OPTForCausalLM", "OPTConfig", OPT | {"num_hidden_layers": 12}),
    "facebook/opt-125m": ("OPTForCausalLM", "OPTConfig", OPT | {"num_hidden_layers": 12}),
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", "OPTConfig", OPT),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "peft-internal-testing/tiny-random-gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "hf-internal-testing/tiny-random-gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "openai-community/gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": ("GPTJForCausalLM", "GPTJConfig", GPT | {"rotary_dim": 4}),
    "peft-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "hf-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "hf-internal-testing/tiny-random-MistralForCausalLM": ("MistralForCausalLM", "MistralConfig", GROUPED),
    "hf-internal-testing/Mixtral-tiny": ("MixtralForCausalLM", "MixtralConfig", GROUPED | {"num_local_experts": 4}),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA),
    "peft-internal-testing/tiny-random-BloomForCausalLM": (
        "BloomForCausalLM", "BloomConfig", {"hidden_size": 32, "n_layer": 5, "n_head": 4},
    ),
    "peft-internal-testing/tiny-random-GPTNeoXForCausalLM": (
        "GPTNeoXForCausalLM", "GPTNeoXConfig", BERT,
    ),
    "bert-base-uncased": ("BertForMaskedLM", "BertConfig", BERT),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", "BertConfig", BERT),
    "hf-internal-testing/tiny-random-BertModel": ("BertModel", "BertConfig", BERT),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        "BertForSequenceClassification", "BertConfig", BERT,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaForSequenceClassification", "LlamaConfig", GROUPED,
    ),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", "RobertaConfig", BERT),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification", "RobertaConfig", BERT,
    ),
    "peft-internal-testing/tiny-random-DebertaModel": ("DebertaModel", "DebertaConfig", BERT),
    "peft-internal-testing/tiny-random-DebertaV2Model": ("DebertaV2Model", "DebertaV2Config", BERT),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration": ("T5ForConditionalGeneration", "T5Config", T5),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        "T5ForConditionalGeneration", "T5Config", T5,
    ),
    "google/flan-t5-small": ("T5ForConditionalGeneration", "T5Config", T5),
    "peft-internal-testing/tiny-random-t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartForConditionalGeneration", "BartConfig", BART,
    ),
}  # fmt: skip


def make_hub(home: Path) -> None:
    """Write what is missing of the models, each with a tokenizer of bytes, where `HF_HOME` is `home`."""
    import torch
    import transformers

    tokenizer = byte_tokenizer()
    for name, (kind, config, sizes) in MODELS.items():
        folder = home / "hub" / f"models--{name.replace('/', '--')}"
        if (folder / "refs" / "main").exists():
            continue
        torch.manual_seed(0)
        model = getattr(transformers, kind)(getattr(transformers, config)(vocab_size=WORDS, **TOKENS, **sizes))
        model.save_pretrained(folder / "snapshots" / COMMIT)
        tokenizer.save_pretrained(folder / "snapshots" / COMMIT)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)


def byte_tokenizer() -> Any:
    """Return a tokenizer with a token for each byte and no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)
