"""The frozen sets of captions to paint: held-out combinations in the recipe's palette, and general scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.randomness import canonical_json, seed_for
from tercet.train.task import Example, Suite
from tercet_image.general_scenes import MEASURED, general_payloads
from tercet_image.held_out import held_out_records, pair_of
from tercet_image.plan import HELD_OUT
from tercet_image.recipe import ImageRecipe

NUM_GENERAL = 240  # captions
SEEDS_EACH = 2  # pictures of one caption, to see whether they differ
SEED = 7


def read_suites(section: ImageRecipe, run_dir: Path) -> list[Suite]:
    """Read the run's held-out captions and draw the general ones."""
    held_out = held_out_examples(section, run_dir)
    general = [
        caption_example(key, payload, key, is_general=True)
        for key, payload in general_payloads(section, MEASURED, NUM_GENERAL)
    ]
    return [
        Suite(HELD_OUT, "primary", "captions of pairs never trained on", held_out),
        Suite("general", "general", "captions in the default palette", general),
    ]


def held_out_examples(section: ImageRecipe, run_dir: Path) -> list[Example]:
    """Read the held-out captions; their source is the pair.

    Raises:
        UsageError: there is no held-out picture, or the checker could judge none of them.
    """
    found = [
        caption_example(record.id, record.payload, pair_of(record.payload), is_general=False)
        for record in held_out_records(section, run_dir)
        if can_be_judged(record.payload)
    ]
    if not found:
        raise UsageError(
            f"modalities.image.scene.label_share: {section.scene.label_share:g} writes a term into every held-out "
            "picture, and the checker knows no packages; lower it"
        )
    return found


def can_be_judged(payload: Mapping[str, Any]) -> bool:
    """Say whether the checker knows all that a picture shows: its scene is told, and no box or bottle is in it."""
    scene = json.loads(payload["scene"])
    return bool(scene) and not any(thing["label"] for thing in scene["objects"])


def caption_example(name: str, payload: Mapping[str, Any], source: str, *, is_general: bool) -> Example:
    """Turn a caption and its scene into an example; `reference` is the scene that its pictures must show."""
    scene = json.loads(payload["scene"])
    slices = {"objects": str(len(scene["objects"])), "caption": scene["style"]}
    reference = canonical_json({"scene": scene, "general": is_general})
    return Example(name, source, reference, painted(name, payload["caption"]), slices)


def painted(name: str, caption: str) -> dict[str, Any]:
    """Say what a pipeline is given: a caption and a seed for each of its pictures."""
    return {"caption": caption, "seeds": [seed_for(SEED, name, "paint", at) for at in range(SEEDS_EACH)]}
