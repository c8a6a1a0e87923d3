"""A tiny StableDiffusionPipeline of random weights, and what a task's tests need of their folder `root`."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest

from tercet.compat import prepare_torchaudio
from tercet.recipe import Recipe, load_recipe

CARD = "---\nlicense: apache-2.0\n---\nRandom weights for a test.\n"
MAX_TOKENS = 192  # a character a token: the tokenizer below merges nothing


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the pipeline into a folder as a user would: 0.1 M parameters, 32 px."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(folder)
    return folder


def quietly(*_: Any) -> None:
    pass


def catch_question(monkeypatch: pytest.MonkeyPatch, parts: Any) -> dict[str, Any]:
    """Let the denoiser answer zeros; what it was asked last stands in what this returns: `noisy` and `times`."""
    import torch

    seen: dict[str, Any] = {}

    def predict(noisy: Any, times: Any, told: Any) -> Any:
        del told
        seen.update(noisy=noisy, times=times)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(parts, "predict", predict)
    return seen


@pytest.fixture
def recipe(root: Path) -> Recipe:
    return load_recipe(root / "recipe.yaml")


@pytest.fixture
def run_dir(root: Path) -> Path:
    return root / "runs" / "brand"


@pytest.fixture
def model(task: Any, root: Path) -> Any:
    return task.load_base(root / "base")


def build(folder: Path) -> None:
    prepare_torchaudio()
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import logging
    from transformers import CLIPTextConfig, CLIPTextModel

    logging.disable_progress_bar()
    tokenizer = _tokenizer(folder.parent)
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_attention_heads=2,
            num_hidden_layers=1, max_position_embeddings=MAX_TOKENS, **ends,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
            cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
        pipeline: Any = StableDiffusionPipeline(
            vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(CARD)


def _tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    letters = [*string.printable.strip()]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS)
