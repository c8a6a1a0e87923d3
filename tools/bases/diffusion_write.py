"""Write the base's folder: parts in fp16, the training log, and a model card with the figures and digests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.bases import diffusion_world as world
from tools.bases.diffusion_parts import MAX_TOKENS
from tools.bases.diffusion_score import GUIDANCE, STEPS

FLOOR = 0.8
CARD = """\
---
license: apache-2.0
tags: [text-to-image, stable-diffusion, synthetic]
---

# Scenes: a small text-to-image base

Paints flat scenes of 64 x 64 pixels: one or two objects on a plain background. It is the starting point for a LoRA
adapter, not a model to use as it is. {params} million parameters, {megabytes} MB.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("modalities/tercet_image/bases/scenes_diffusion")
picture = pipeline("A small red circle and a large blue star on cream.", num_inference_steps={steps},
                   guidance_scale={guidance}).images[0]
```

In a recipe: `diffusion: {{model: 'path:...', size: 64, steps: {steps}, guidance: {guidance}}}`. Set steps and guidance:
the pipeline's own (50, 7.5) are for large models.

## Trained on

Pictures of tercet's own renderer and its own captions, nothing else: {pictures:,} scenes of the image plan (seed
{seed}), 10 shapes, 8 colours, 2 sizes, 6 backgrounds, 4 relations. These colour-shape pairs appear in none of them:
{held_out}.

The autoencoder alone also saw {colourful:,} scenes in random colours, so that it can show a palette that the denoiser
never painted. {unknown:.0%} of the captions have a made-up word for one colour, so that an unknown name leaves the rest
alone.

Made by `{command}` (tools/bases), on one shared CPU core; seeds are fixed, and `training-log.jsonl` has each
stage's losses and times.

## Adapting it

The denoiser predicts v: the target is `scheduler.get_velocity(latents, noise, times)`, the latents are
`vae.encode(pictures).latents * vae.config.scaling_factor`, and times are drawn evenly from all 1,000. The text enters
by attention (`to_q`, `to_k`, `to_v`, `to_out.0`) and, pooled, beside the time (`add_embedding.proj`, `time_emb_proj`).
Prompts are padded to the tokenizer's {tokens} tokens, in training as in painting.

## Measured

On {number} captions of held-out combinations (half one object, half two; half short, half dense), {steps} steps,
guidance {guidance}, one picture each, judged by `tercet_image.checker`, which shares nothing with this model. An
attribute counts when the picture has it right for all its objects. Chance: the same pictures held against
another scene with as many objects, so of `number` it says nothing; two things that are both wrong may stand either way
round, so `relation` is right by chance half the time.

| attribute | right | 95% interval | of | chance |
|---|---|---|---|---|
{rows}

{verdict}

## Limits

Two objects at most, no labels, English captions as the renderer words them. A word it never saw means no colour to it.

## Digests (SHA-256)

{digests}
"""


def write_folder(pipeline: Any, found: Mapping[str, Any], command: str, folder: Path, work: Path) -> None:
    """Write the pipeline, its log and its card; `found` is what `score` returned."""
    import torch

    parameters = sum(
        one.numel() for name in ("vae", "text_encoder", "unet") for one in getattr(pipeline, name).parameters()
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    config = folder / "text_encoder" / "config.json"  # transformers would load it in fp16, diffusers the rest in fp32
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    shutil.copy(work / "training-log.jsonl", folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    (folder / "README.md").write_text(
        CARD.format(
            params=round(parameters / 1e6, 1),
            megabytes=round(sum(path.stat().st_size for path in files) / 1e6, 1),
            steps=STEPS,
            tokens=MAX_TOKENS,
            guidance=GUIDANCE,
            pictures=world.NUM_PICTURES,
            colourful=world.NUM_COLOURFUL,
            unknown=world.UNKNOWN_SHARE,
            seed=world.SEED,
            held_out=", ".join(" ".join(pair) for pair in sorted(world.held_out_pairs())),
            command=command,
            number=found["pictures"],
            rows="\n".join(_row(name, found) for name in found["right"]),
            verdict=_verdict(found["right"]),
            digests="\n".join(f"- `{path.relative_to(folder)}` {_digest(path)}" for path in files),
        )
    )


def _row(name: str, found: Mapping[str, Any]) -> str:
    right, number, low, high = found["right"][name]
    chance = found["chance"][name]
    return f"| {name} | {right / number:.1%} | {low:.1%} to {high:.1%} | {number} | {chance:.1%} |"


def _verdict(right: Mapping[str, Any]) -> str:
    missed = [name for name, (hits, number, *_) in right.items() if name != "all" and hits < FLOOR * number]
    if missed:
        return f"**Below the floor of {FLOOR:.0%} that was set for it: {', '.join(missed)}.**"
    return f"Each attribute meets the floor of {FLOOR:.0%} that was set before training."


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
