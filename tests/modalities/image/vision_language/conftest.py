"""The task `vision-language` on a LLaVA of random weights, with a finished run: real code, meaningless answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet.compat import prepare_torchaudio
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet_image.vision_language import VisionLanguage

SIZE, PATCH = 64, 16
CONTEXT = 160  # 16 tokens of the picture, a token a letter
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
  {%- if message['role'] == 'assistant' %}
    {{- ' ASSISTANT: ' + message['content'][0]['text'] + eos_token + '\n' }}
  {%- else %}
    {{- 'USER: ' }}
    {%- for part in message['content'] if part['type'] == 'image' %}{{- '<image>' }}{%- endfor %}
    {%- for part in message['content'] if part['type'] == 'text' %}{{- part['text'] }}{%- endfor %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- ' ASSISTANT:' }}{%- endif %}
"""
RECIPE = """
version: 1
name: brand
seed: 3
modalities:
  image:
    pictures: 40
    size: 64
    test_fraction: 0.2
    captions: [short]
    scene:
      shapes: [circle, square, star]
      colours: {teal: '#008080', mustard: '#c9a227', red: '#e5383b'}
      label_share: 0
train:
  task: vision-language
  base: path:./base
  steps: 3
  micro_batch: 4
  adapter: {rank: 2, dropout: 0}
"""


def build(folder: Path) -> None:
    """Save a tiny LLaVA as a user would."""
    prepare_torchaudio()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = ["<pad>", "<s>", "</s>", "<image>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    letters.add_special_tokens(words[:4])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"}, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIZE,
            patch_size=PATCH, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=CONTEXT, tie_word_embeddings=True, **ends,
        ),
        image_token_index=3, image_seq_length=(SIZE // PATCH) ** 2, vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=True, **ends,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A recipe's folder with its base and its finished run."""
    folder = tmp_path_factory.mktemp("brand")
    build(folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE)
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.fixture
def task(recipe):
    return VisionLanguage(recipe)


@pytest.fixture
def data(task, model, run_dir):
    return task.prepare(model, run_dir, 3, lambda *_: None)
