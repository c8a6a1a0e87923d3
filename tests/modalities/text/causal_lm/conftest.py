"""A random Llama, the task `causal-lm` for it, and dialogs to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tercet.compat import prepare_torchaudio
from tercet.models import resolve
from tercet.recipe import Train, load_recipe
from tercet.records import Record
from tercet_text import lm_data
from tercet_text.causal_lm import CausalLm
from tercet_text.causal_lm_chat import ChatFormat
from tercet_text.dialog import message

RECIPE = """
version: 1
name: tiny
sources: {terms: terms.txt}
modalities:
  text: {dialogs: 3}
train: {task: causal-lm}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with SmolLM2's tokenizer, as a user's base would lie there."""
    prepare_torchaudio()
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve("auto", "chat").path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, bos_token_id=1,
        initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def task(tmp_path: Path) -> CausalLm:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "terms.txt").write_text("metformin\nwarfarin\n")
    return CausalLm(load_recipe(tmp_path / "recipe.yaml"))


MARKED = (  # Llama 2's spaces around an answer, in a template that marks what the assistant writes
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }} "
    "<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def record(name: str, *said: str, system: str = "You help.", tools: str = "[]") -> Record:
    roles = ("user", "assistant")
    messages = [message("system", system), *(message(roles[at % 2], text) for at, text in enumerate(said))]
    payload = {
        "messages": messages, "citations": [], "tools": tools, "intent": "i", "persona": "p", "mood": "m",
        "edge_case": "",
    }  # fmt: skip
    return Record(name, "i", "text", "train", payload, {"parameters": {}}, ())


DIALOGS = [
    record("one", "Hi there.", "Hello! How can I help?", "Two packs?", "They cost 4.50 pounds."),
    record("two", "What is open?", "Mill Street, until noon."),
    record("three", "Hi.", "Yes?", system="Another beginning, a longer one."),
    record("four", "Is it far?", "No, not at all; it is around the corner."),
]


def prepared(model: Any, form: ChatFormat, records: list[Record], context: int = 512) -> lm_data.PackedData:
    train = Train(task="causal-lm")
    return lm_data.prepare(form, context, model.device, records, train, 1, lambda *_: None)


def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)
