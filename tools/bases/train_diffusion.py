"""Train the small text-to-image base on the renderer's scenes alone, judge it, and write its folder.

    python -m tools.bases.train_diffusion --minutes 60

Two stages, each resumable: an autoencoder on pictures in any colours, then text encoder and denoiser jointly on its
latents. The score comes from tercet_image.checker, which shares nothing with this.

Shapes: N pictures, B of a batch, V captions of each, L tokens, C H W of pictures, c h w of latents, D text features.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tools.bases import diffusion_parts as parts
from tools.bases import diffusion_world as world
from tools.bases.diffusion_score import score
from tools.bases.diffusion_stages import Stage, log, run_stage
from tools.bases.diffusion_write import write_folder

from tercet.compat import prepare_torchaudio
from tercet_image.caption import caption

WORK = Path(".cache/diffusion-base")
FOLDER = Path("modalities/tercet_image/bases/scenes_diffusion")
CROP = 32  # pixels; without norms the autoencoder sees 24 pixels far at most, so pieces teach the same at a quarter
CROPS, BATCH = 32, 32  # batch sizes of the two stages
READING_WEIGHT = 0.005
NO_CAPTION_SHARE = 0.1  # for classifier-free guidance
EDGE_WEIGHT = 4.0
LATENT_NOISE = 0.05  # the decoder must bear the denoiser's small errors


@dataclass
class Base:
    """The parts in training."""

    tokenizer: Any
    autoencoder: Any
    text_encoder: Any
    unet: Any


def main() -> None:
    """Train as far as the minutes go; when all stages are done, score the base and write its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="stop after so long; the next call goes on")
    parser.add_argument("--autoencoder-steps", type=int, default=2600)
    parser.add_argument("--steps", type=int, default=12_000, help="of the joint stage")
    parser.add_argument("--pictures", type=int, default=400, help="held-out pictures to judge")
    asked = parser.parse_args()
    deadline = time.monotonic() + 60 * asked.minutes
    prepare_torchaudio()
    import torch

    torch.manual_seed(world.SEED)
    WORK.mkdir(parents=True, exist_ok=True)
    scenes = world.training_scenes(world.NUM_PICTURES)
    tokenizer = parts.build_tokenizer(_plain(scenes), WORK / "tokenizer")
    base = Base(tokenizer, parts.build_autoencoder(), parts.build_text_encoder(tokenizer), parts.build_unet())
    is_done = run_stage(autoencoder_stage(base, scenes, asked.autoencoder_steps), WORK, deadline)
    if is_done:
        painted = scenes[: world.NUM_PAINTED]
        texts, slots_NVS = world.write_captions(painted, world.SEED)
        tokens_NVL = _tokenize(tokenizer, texts).reshape(len(painted), len(world.CAPTIONS), -1)
        stage = joint_stage(base, encode(base, painted), tokens_NVL, slots_NVS, asked.steps)
        is_done = run_stage(stage, WORK, deadline)
    pipeline = parts.build_pipeline(base.autoencoder, base.text_encoder, tokenizer, base.unet)
    found = score(pipeline, world.held_out_scenes(asked.pictures), WORK)
    log(WORK, stage="score", is_done=is_done, **found)
    if is_done:
        command = f"python -m tools.bases.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
        write_folder(pipeline, found, command, FOLDER, WORK)


def _plain(scenes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write captions without made-up words: what the tokenizer's whole words come from."""
    return [
        caption({**scene, "style": style}, random.Random(at))
        for at, scene in enumerate(scenes[:4000])
        for style in world.CAPTIONS
    ]


def _tokenize(tokenizer: Any, texts: list[str]) -> NDArray[np.int64]:
    taken = tokenizer(texts, padding="max_length", truncation=True, max_length=parts.MAX_TOKENS)
    return np.array(taken["input_ids"], np.int64)


def _to_signal(pictures: NDArray[np.uint8]) -> Any:
    """Turn (N, H, W, C) bytes into (N, C, H, W) between -1 and 1."""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def autoencoder_stage(base: Base, scenes: Sequence[Mapping[str, Any]], steps: int) -> Stage:
    """Make the stage that learns pictures: half in the palette, half in random colours, for palettes to come."""
    import torch

    @functools.cache
    def pools() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:  # drawn when the first step asks for them
        return world.draw_pictures(scenes[: world.NUM_COLOURFUL], random_colours=True), world.draw_pictures(scenes)

    def losses(step: int) -> dict[str, Any]:
        chance = np.random.default_rng([world.SEED, 1, step])
        batch = np.empty((CROPS, CROP, CROP, 3), np.uint8)
        for at in range(len(batch)):
            pool = pools()[at % 2]
            row, column = chance.integers(0, world.SIZE - CROP + 1, 2)
            batch[at] = pool[chance.integers(len(pool)), row : row + CROP, column : column + CROP]
        x_BCHW = _to_signal(batch)
        z_Bchw = base.autoencoder.encode(x_BCHW).latents
        noise = torch.randn(z_Bchw.shape, generator=torch.Generator().manual_seed(step))
        y_BCHW = base.autoencoder.decode(z_Bchw + LATENT_NOISE * noise).sample
        local = torch.nn.functional.max_pool2d(x_BCHW, 3, 1, 1) + torch.nn.functional.max_pool2d(-x_BCHW, 3, 1, 1)
        weight = 1 + EDGE_WEIGHT * (local.amax(1, keepdim=True) > 0.1)
        by_channel = z_Bchw.transpose(0, 1).flatten(1)
        spread = by_channel.mean(1).square().mean() + (by_channel.std(1) - 1).square().mean()
        return {"picture": (weight * (y_BCHW - x_BCHW).abs()).mean(), "spread": 0.02 * spread}

    return Stage("autoencoder", base.autoencoder, losses, steps, learning_rate=2e-3)


def encode(base: Base, scenes: Sequence[Mapping[str, Any]]) -> Any:
    """Encode all pictures once, and set the autoencoder's scaling factor so that latents have deviation 1."""
    import torch
    from safetensors.torch import load_file, save_file

    kept = WORK / "latents.safetensors"
    if not kept.is_file():
        signal = _to_signal(world.draw_pictures(scenes))
        with torch.inference_mode():
            # few at a time: 32 features of 64 x 64 pixels leave a CPU's cache soon
            batches = [base.autoencoder.encode(batch).latents.half().contiguous() for batch in signal.split(20)]
        save_file({"latents": torch.cat(batches).contiguous()}, kept)
    latents = load_file(kept)["latents"]
    factor = round(1 / float(latents[:2000].float().std()), 4)
    base.autoencoder.register_to_config(scaling_factor=factor)
    return latents * factor


def joint_stage(
    base: Base, latents_Nchw: Any, tokens_NVL: NDArray[np.int64], slots_NVS: NDArray[np.int64], steps: int
) -> Stage:
    """Make the stage that learns to read and to paint.

    Painting is v-prediction, times spread evenly over each batch. Reading is told directly, too: all of a caption's
    slots must follow, linearly, from the tokens behind its end. Which word belongs to which object is what such a model
    learns last from pictures alone; here it costs nothing.
    """
    import torch

    base.unet.to(memory_format=torch.channels_last)  # 1.2 times as fast on a CPU
    sizes = world.slot_sizes()
    reader = torch.nn.Linear(parts.WIDTH, sum(sizes))
    module = torch.nn.ModuleDict({"unet": base.unet, "text_encoder": base.text_encoder, "reader": reader})
    scheduler = parts.build_scheduler()
    end = base.tokenizer.eos_token_id
    empty_L = torch.from_numpy(_tokenize(base.tokenizer, [""])[0])

    def losses(step: int) -> dict[str, Any]:
        chance = np.random.default_rng([world.SEED, 2, step])
        rows, which = chance.integers(len(tokens_NVL), size=BATCH), chance.integers(len(world.CAPTIONS), size=BATCH)
        tokens_BL = torch.from_numpy(tokens_NVL[rows, which])
        slots_BS = torch.from_numpy(slots_NVS[rows, which])
        dropped = torch.from_numpy(chance.random(BATCH) < NO_CAPTION_SHARE)
        tokens_BL[dropped], slots_BS[dropped] = empty_L, world.NOT_SAID
        x_Bchw = latents_Nchw[torch.from_numpy(rows)].float()
        noise = torch.randn(x_Bchw.shape, generator=torch.Generator().manual_seed(step))
        spread = (np.arange(BATCH) + chance.random(BATCH)) / BATCH
        times_B = torch.from_numpy((spread * scheduler.config.num_train_timesteps).astype(np.int64))
        text_BLD = base.text_encoder(tokens_BL)[0]
        noisy = scheduler.add_noise(x_Bchw, noise, times_B).contiguous(memory_format=torch.channels_last)
        v_Bchw = base.unet(noisy, times_B, text_BLD).sample
        painting = torch.nn.functional.mse_loss(v_Bchw, scheduler.get_velocity(x_Bchw, noise, times_B))
        is_end_BL1 = (tokens_BL == end).unsqueeze(-1).float()
        told = reader((text_BLD * is_end_BL1).sum(1) / is_end_BL1.sum(1)).split(sizes, 1)
        reading = sum(
            torch.nn.functional.cross_entropy(one, slots_BS[:, at], reduction="sum", ignore_index=world.NOT_SAID)
            for at, one in enumerate(told)
        )
        return {"painting": painting, "reading": READING_WEIGHT * reading / BATCH}

    return Stage("joint", module, losses, steps, learning_rate=1e-3)


if __name__ == "__main__":
    main()
