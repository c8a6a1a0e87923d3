"""Judge a text-to-image base on captions of held-out combinations, by the rules of tercet_image.checker alone."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tools.bases.diffusion_world import SEED, SIZE, section

from tercet_image.caption import caption
from tercet_image.checker import Seen, attribute_hits, look

STEPS, GUIDANCE = 20, 3.0
BATCH = 25
GRID = (8, 5)  # pictures across and down


def score(pipeline: Any, scenes: Sequence[Mapping[str, Any]], work: Path) -> dict[str, Any]:
    """Paint one picture per scene and count, per attribute, the pictures that have all of it right.

    Returns per attribute right, number and 95% interval, and `chance`: the same pictures held against another
    scene's caption. `relation` counts where the caption tells it.
    """
    pictures, seen = judge(pipeline, scenes)
    _grid(pictures).save(work / "held-out.png")
    others = [*scenes[len(scenes) // 2 :], *scenes[: len(scenes) // 2]]  # as many objects, another scene
    return {
        "pictures": len(pictures),
        "right": {name: [sum(hits), len(hits), *interval(hits)] for name, hits in count_hits(scenes, seen).items()},
        "chance": {name: round(sum(hits) / len(hits), 3) for name, hits in count_hits(others, seen).items()},
    }


def judge(pipeline: Any, scenes: Sequence[Mapping[str, Any]]) -> tuple[list[Image.Image], list[Seen]]:
    """Paint each scene's caption; return the pictures, and what they show."""
    texts = [caption(scene, random.Random(f"{SEED}/held out/{at}")) for at, scene in enumerate(scenes)]
    pictures = paint(pipeline, texts)
    attributes = section(1).scene
    return pictures, [look(picture, attributes.colours, attributes.backgrounds) for picture in pictures]


def paint(pipeline: Any, texts: Sequence[str]) -> list[Image.Image]:
    """Paint captions as a recipe would, the n-th with seed n."""
    import torch

    pictures: list[Image.Image] = []
    for start in range(0, len(texts), BATCH):
        prompts = list(texts[start : start + BATCH])
        seeds = [torch.Generator("cpu").manual_seed(start + at) for at in range(len(prompts))]
        answer = pipeline(prompt=prompts, generator=seeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        pictures += answer.images
    return pictures


def count_hits(scenes: Sequence[Mapping[str, Any]], seen: Sequence[Seen]) -> dict[str, list[bool]]:
    """List per attribute, and for all of them at once, which pictures are right."""
    counted: dict[str, list[bool]] = defaultdict(list)
    for scene, one in zip(scenes, seen, strict=True):
        hits = attribute_hits(scene, one)
        if scene["style"] == "short":
            hits.pop("relation", None)
        for name, hit in {**hits, "all": all(hits.values())}.items():
            counted[name].append(hit)
    return dict(counted)


def interval(hits: Sequence[bool]) -> tuple[float, float]:
    """Give the 95% interval of a share (Wilson 1927), which stays within 0 and 1."""
    z, number, share = 1.96, len(hits), sum(hits) / len(hits)
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number)) / (1 + z * z / number)
    return round(middle - half, 4), round(middle + half, 4)


def _grid(pictures: Sequence[Image.Image]) -> Image.Image:
    across, down = GRID
    sheet = Image.new("RGB", (across * (SIZE + 2), down * (SIZE + 2)), "#808080")
    for at, picture in enumerate(pictures[: across * down]):
        sheet.paste(picture, (at % across * (SIZE + 2), at // across * (SIZE + 2)))
    return sheet
