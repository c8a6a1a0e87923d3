"""The base's parts: a byte-level tokenizer of the world's words, a processor, and a small LLaVA without weights yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.bases.vlm_world import PATCH, SIDE, SIZE

from tercet.compat import prepare_torchaudio

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
VOCABULARY = 600  # at most: 256 bytes, 4 special tokens, and merges until each of the world's words is one token
LONGEST = 512  # tokens; a picture takes 64
# a picture and a question; `generation` marks what a trainer's loss counts (return_assistant_tokens_mask)
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
  {%- if message['role'] == 'assistant' %}
    {{- ' ASSISTANT:' }}
    {%- generation %}
      {%- if message['content'] is string %}
        {{- ' ' + message['content'] + eos_token }}
      {%- else %}
        {{- ' ' + message['content'][0]['text'] + eos_token }}
      {%- endif %}
    {%- endgeneration %}
  {%- elif message['content'] is string %}
    {{- 'USER: ' + message['content'] }}
  {%- else %}
    {{- 'USER: ' }}
    {%- for part in message['content'] if part['type'] == 'image' %}
      {{- '<image>\n' }}
    {%- endfor %}
    {%- for part in message['content'] if part['type'] == 'text' %}
      {{- part['text'] }}
    {%- endfor %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- ' ASSISTANT:' }}
{%- endif %}
"""


def build_tokenizer(lines: Sequence[str]) -> Any:
    """Train a byte-level BPE on `lines`: frequent words become one token, anything else falls into known pieces."""
    prepare_torchaudio()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left",
        extra_special_tokens={"image_token": IMAGE}, model_max_length=LONGEST, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_processor(tokenizer: Any) -> Any:
    """Put the tokenizer beside an image processor for pictures of 64 px: a larger one is made smaller."""
    prepare_torchaudio()
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )


def build_model(tokenizer: Any) -> Any:
    """Build the model with fresh weights: about 0.8 M parameters that see, 1.9 M that read and write."""
    prepare_torchaudio()
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        image_size=SIZE, patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=6, max_position_embeddings=LONGEST, tie_word_embeddings=True, **ends,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=SIDE * SIDE, vision_feature_layer=-1, vision_feature_select_strategy="full",
        tie_word_embeddings=True, **ends,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)
