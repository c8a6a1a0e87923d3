"""Painted pictures as text, and how they are judged: by rules that share nothing with the model that painted them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from tercet.randomness import canonical_json
from tercet_image.checker import attribute_hits, look
from tercet_image.colour import BACKGROUNDS, COLOURS
from tercet_image.gates import PATCHES
from tercet_image.recipe import SceneAttributes

ATTRIBUTE_ERRORS = "attribute errors"
OTHER_ERRORS = "attribute errors off colours"
FALSE_COLOURS = "new colours painted in error"
DIVERSITY = "difference between seeds"
ATTRIBUTES = ("colour", "shape", "size", "number", "background", "relation")
BRIGHTEST = 255.0


def write_pictures(pictures: Sequence[Image.Image]) -> str:
    """Write pictures as JSON: `{"png": [base64, ...]}`."""
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    return canonical_json({"png": files})


def read_pictures(text: str) -> list[Image.Image]:
    """Read what `write_pictures` wrote."""
    return [Image.open(io.BytesIO(one), formats=("PNG",)).convert("RGB") for one in picture_files(text)]


def picture_files(text: str) -> list[bytes]:
    """Read the PNG files in what `write_pictures` wrote."""
    return [base64.b64decode(one) for one in json.loads(text)["png"]]


def count_pictures(
    pictures: Sequence[Image.Image], scene: Mapping[str, Any], attributes: SceneAttributes, *, is_general: bool
) -> dict[str, tuple[float, float]]:
    """Count the attributes that pictures of one scene have wrong; `relation` counts where the caption tells it.

    Colours are looked up among the default names and the recipe's; where both know a name, a general scene means the
    default. A general scene with one of the recipe's own colours in it counts as painted in error.
    """
    recipe, default = (attributes.colours, attributes.backgrounds), (COLOURS, BACKGROUNDS)
    first, second = (default, recipe) if is_general else (recipe, default)
    colours, backgrounds = ({**other, **own} for own, other in zip(first, second, strict=True))
    counts = {name: [0.0, 0.0] for name in (ATTRIBUTE_ERRORS, OTHER_ERRORS)}
    new = set(recipe[0]) - set(COLOURS)
    is_new = any(thing["colour"] in new for thing in scene["objects"])
    false_colours = 0
    for picture in pictures:
        seen = look(picture, colours, backgrounds)
        hits = attribute_hits(scene, seen)
        if scene["style"] == "short":
            hits.pop("relation", None)
        for kind in (one for one in ATTRIBUTES if one in hits):
            names = [ATTRIBUTE_ERRORS, f"{kind} errors", *([OTHER_ERRORS] if kind != "colour" else [])]
            for name in names:
                count = counts.setdefault(name, [0.0, 0.0])
                count[0] += not hits[kind]
                count[1] += 1
        false_colours += min(len(scene["objects"]), sum(one.colour in new for one in seen.objects))
    if not is_new:
        counts[FALSE_COLOURS] = [float(false_colours), float(len(pictures) * len(scene["objects"]))]
    if len(pictures) > 1:
        counts[DIVERSITY] = [patch_difference(pictures), 1.0]
    return {name: (errors, units) for name, (errors, units) in counts.items()}


def patch_difference(pictures: Sequence[Image.Image]) -> float:
    """Give how far pictures of one caption lie apart: the mean over pairs and patches, of the whole range."""
    shrunk = [
        np.asarray(one.convert("RGB").resize((PATCHES, PATCHES), Image.Resampling.BOX), np.float64) for one in pictures
    ]
    return float(np.mean([np.abs(one - other).mean() for one, other in combinations(shrunk, 2)]) / BRIGHTEST)
