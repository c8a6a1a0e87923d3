"""The task `text-to-image` on other kinds of pipelines: SDXL's two text encoders, a transformer trained as a flow."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.modalities.image.conftest import catch_question

from tercet.pipeline.run import run_recipe
from tercet.recipe import Adapter, load_recipe
from tercet.train.adapters import attach, save, trainable
from tercet.train.loading import load
from tercet_image.t2i_judging import read_pictures
from tercet_image.t2i_parts import parts_of
from tercet_image.text_to_image import TextToImage

RECIPE = """
version: 1
name: brand
seed: 3
modalities:
  image:
    pictures: 12
    size: 64
    test_fraction: 0
    captions: [short]
    scene: {label_share: 0}
    training: {steps: 2, caption_dropout: 0}
train: {task: text-to-image}
"""
MAX_TOKENS = 77  # what both pipelines pad to
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
        "projection_dim": 16, "max_position_embeddings": MAX_TOKENS}  # fmt: skip
VAE = {"block_out_channels": (8, 8), "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 2,
       "up_block_types": ("UpDecoderBlock2D",) * 2}  # fmt: skip
# what a user's script does, in a process that has not imported tercet
SCRIPT = """
import json, sys
import torch
from diffusers import DiffusionPipeline

base, adapter, out, *seeds = sys.argv[1:]
absent = [name for name, part in json.load(open(f"{base}/model_index.json")).items() if part == [None, None]]
pipeline = DiffusionPipeline.from_pretrained(base, **dict.fromkeys(absent))
pipeline.set_progress_bar_config(disable=True)
pipeline.load_lora_weights(adapter)
seeds = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
made = pipeline(["A red star."] * 16, generator=seeds, num_inference_steps=2, guidance_scale=3.0, width=16, height=16)
made.images[0].save(out)
assert not [name for name in sys.modules if name.split(".")[0].startswith("tercet")]
"""


def build_xl(tokenizer: Any, ends: dict[str, int]) -> Any:
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    parts: Any = diffusers
    config = CLIPTextConfig(vocab_size=len(tokenizer), **TEXT, **ends)
    unet = parts.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=32, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip
    return parts.StableDiffusionXLPipeline(
        vae=parts.AutoencoderKL(latent_channels=4, **VAE), text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config), tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet,
        scheduler=parts.DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1), add_watermarker=False,
    )  # fmt: skip


def build_flow(tokenizer: Any, ends: dict[str, int]) -> Any:
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    parts: Any = diffusers
    config = CLIPTextConfig(vocab_size=len(tokenizer), **TEXT, **ends)
    transformer = parts.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8,
    )  # fmt: skip
    return parts.StableDiffusion3Pipeline(
        vae=parts.AutoencoderKL(
            latent_channels=4, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False,
            use_post_quant_conv=False, **VAE
        ),
        text_encoder=CLIPTextModelWithProjection(config), text_encoder_2=CLIPTextModelWithProjection(config),
        text_encoder_3=None, tokenizer=tokenizer, tokenizer_2=tokenizer, tokenizer_3=None, transformer=transformer,
        scheduler=parts.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[build_xl, build_flow], ids=["xl", "flow"])
def root(request, tmp_path_factory, tiny_pipeline):
    """A recipe's folder with a base of this kind, and its finished run."""
    import torch
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("kind")
    words = tiny_pipeline.parent
    tokenizer = CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=MAX_TOKENS)
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        request.param(tokenizer, ends).save_pretrained(folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE)
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.fixture
def task(root):
    return TextToImage(load_recipe(root / "recipe.yaml"))


def adapted(task: TextToImage, root: Path) -> Any:
    import torch

    model = attach(task.load_base(root / "base"), Adapter(rank=2, dropout=0), task.defaults.targets)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in trainable(model).values():
            value.normal_(std=0.3, generator=generator)
    return model


def test_the_loss_reaches_every_adapter(task, root):
    model = adapted(task, root)
    data = task.prepare(model, root / "runs" / "brand", 3, lambda *_: None)
    task.loss(model, data.collate([0, 1], [0])).backward()
    parts = {name.removeprefix("base_model.model.").partition(".")[0] for name in trainable(model)}
    assert parts == {parts_of(model).denoiser, "text_encoder", "text_encoder_2"}
    # a last layer's own output, and what only the last block would hand on, go nowhere
    silent = [name for name, value in trainable(model).items() if value.grad is None]
    assert not [name for name in silent if "to_add_out" not in name and "layers.1." not in name]


def test_diffusers_paints_with_the_adapter_what_we_paint(task, root, tmp_path):
    model = adapted(task, root)
    save(model, tmp_path / "adapter", {"base": "", "base_digest": "x"})
    task.write_layout(tmp_path / "adapter")
    tuned = load(task.load_base(root / "base"), tmp_path / "adapter", "x")
    example = task.read_input("A red star.")
    (ours,) = task.answer(tuned, [example], lambda *_: None)
    (bare,) = task.answer(task.load_base(root / "base"), [example], lambda *_: None)
    assert ours != bare
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    first, last = example.content["seeds"]
    seeds = [str(seed) for seed in (first, *[last] * 15)]
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, root / "base", tmp_path / "adapter", tmp_path / "one.png"]
    subprocess.run([*command, *seeds], check=True)
    from PIL import Image

    assert Image.open(tmp_path / "one.png").tobytes() == read_pictures(ours)[0].tobytes()


@pytest.mark.parametrize("root", [build_flow], ids=["flow"], indirect=True)
def test_a_flow_is_trained_to_go_from_picture_to_noise(task, root, monkeypatch):
    import torch

    model = task.load_base(root / "base")
    parts = parts_of(model)
    batch = task.prepare(model, root / "runs" / "brand", 3, lambda *_: None).collate([0, 1, 2], [])
    seen = catch_question(monkeypatch, parts)
    torch.manual_seed(5)
    loss = float(task.loss(model, batch))
    sigma = (seen["times"] / 1000).view(-1, 1, 1, 1)
    assert ((sigma > 0) & (sigma < 1)).all()
    noise = (seen["noisy"] - (1 - sigma) * batch["latents"]) / sigma
    assert loss == pytest.approx(float((noise - batch["latents"]).square().mean()), rel=1e-4)
    drawn = []
    for seed in range(400):
        torch.manual_seed(seed)
        task.loss(model, batch)
        drawn += [float(time) / 1000 for time in seen["times"]]
    share = [sigma / (3 - 2 * sigma) for sigma in drawn]  # without the scheduler's shift of 3
    logits = torch.tensor([math.log(one / (1 - one)) for one in share])
    assert abs(logits.mean()) < 0.1 and abs(logits.std() - 1) < 0.1
