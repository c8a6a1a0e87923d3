"""The parts of the small text-to-image base: a standard Stable Diffusion pipeline, sized for 64 pixels and one core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_TOKENS = 64  # the longest caption has 37; a name the tokenizer never saw falls into up to a piece per letter
WIDTH = 96  # of the text encoder
LATENT_CHANNELS = 4
LATENT_SIZE = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(texts: Sequence[str], folder: Path) -> Any:
    """Learn byte-pair merges until each word of `texts` is one token; any other word falls into pieces, down to bytes.

    Every byte is a token, so nothing is unknown.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=100_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    words = sorted({word for text in texts for word in text.lower().split()})
    learner.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{one} {two}\n" for one, two in merges))
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS)


def build_autoencoder() -> Any:
    """Make an autoencoder without norms, so that a colour far away changes nothing here: 4 x 4 pixels to 4 numbers."""
    import diffusers

    widths = (32, 32, 32)
    make: Any = diffusers.AutoencoderTiny  # untyped
    return make(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, latent_channels=LATENT_CHANNELS,
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(2, 2, 1),
    )  # fmt: skip


def build_text_encoder(tokenizer: Any) -> Any:
    """Make the text encoder: CLIP's, two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4,
            num_hidden_layers=2, max_position_embeddings=MAX_TOKENS, **ends,
        )
    )  # fmt: skip


def build_unet() -> Any:
    """Make the denoiser; the pooled text also enters beside the time, which costs next to nothing and binds early."""
    import diffusers

    make: Any = diffusers.UNet2DConditionModel  # untyped
    return make(
        sample_size=LATENT_SIZE, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=(24, 48, 96), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, time_embedding_dim=256, resnet_time_scale_shift="scale_shift",
        addition_embed_type="text", addition_embed_type_num_heads=4,
    )  # fmt: skip


def build_scheduler() -> Any:
    """Make the sampler: v-prediction, from a step without any signal (arXiv:2305.08891), or no background is dark."""
    import diffusers

    make: Any = diffusers.DDIMScheduler  # untyped
    return make(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip


def build_pipeline(autoencoder: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> Any:
    """Put the parts together."""
    import diffusers

    make: Any = diffusers.StableDiffusionPipeline
    pipeline = make(
        vae=autoencoder, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
