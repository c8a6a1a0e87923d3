"""The world that the small text-to-image base learns: scenes of the image plan, drawn by the renderer, and captions.

Shapes: N pictures, V captions of each, L tokens, S slots of a scene.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet_image.caption import caption
from tercet_image.plan import HELD_OUT, Pair, Scenes, palette
from tercet_image.recipe import SHAPES, ImageRecipe
from tercet_image.renderer import draw_scene

SEED = 4  # which colour-shape pairs are held out follows from it
SIZE = 64  # pixels
NUM_PICTURES, NUM_COLOURFUL = 60_000, 20_000  # that the autoencoder learns from
NUM_PAINTED = 12_000  # of them: what the denoiser learns from
SHARE_TWO = 0.62  # of the training scenes hold two objects: binding colours to shapes is the hard part
CAPTIONS = ("short", "dense", "dense")  # the captions of one picture; a short one doesn't say where two objects stand
UNKNOWN_SHARE = 0.06  # of the captions have a made-up word for one colour, so that an unknown name upsets nothing else
PLACES = {"left of": ("left", "right"), "right of": ("right", "left"),
          "above": ("top", "bottom"), "below": ("bottom", "top")}  # fmt: skip
ALL_PLACES = ("centre", "left", "right", "top", "bottom")
NOT_SAID = -100  # what cross_entropy ignores


def section(num_objects: int) -> ImageRecipe:
    """Give the recipe of all scenes with so many objects: the default colours, shapes, sizes and backgrounds."""
    scene = {"objects": [num_objects, num_objects], "label_share": 0}
    return ImageRecipe.model_validate({"size": SIZE, "scene": scene})


def scenes_of(split: str, num_objects: int, start: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the plan's scenes of a split (`train` or `held_out_combinations`), without end."""
    scenes = Scenes(section(num_objects), (), SEED)
    for index in count(start):
        item = scenes.item(index, index)
        if item.split == split:
            yield item.spec["scene"]


def held_out_pairs() -> frozenset[Pair]:
    """Give the colour-shape pairs that no training picture holds."""
    return Scenes(section(1), (), SEED).held_out


def training_scenes(number: int) -> list[Mapping[str, Any]]:
    """Give the training scenes; none of them holds a held-out pair."""
    num_two = round(number * SHARE_TWO)
    found = [*islice(scenes_of("train", 2), num_two), *islice(scenes_of("train", 1), number - num_two)]
    banned = held_out_pairs()
    leaked = [scene for scene in found for one in scene["objects"] if (one["colour"], one["shape"]) in banned]
    assert not leaked, f"held-out pairs in training: {leaked[:3]}"
    random.Random(SEED).shuffle(found)
    return found


def held_out_scenes(number: int, start: int = 0) -> list[Mapping[str, Any]]:
    """Give scenes whose first pair was never trained on: one and two objects in turn, short and dense in turn."""
    one, two = (scenes_of(HELD_OUT, num_objects, start) for num_objects in (1, 2))
    mixed = (next(one if at % 2 else two) for at in count())
    return [{**scene, "style": ("dense", "short")[at // 2 % 2]} for at, scene in enumerate(islice(mixed, number))]


def draw_pictures(scenes: Sequence[Mapping[str, Any]], *, random_colours: bool = False) -> NDArray[np.uint8]:
    """Draw scenes in the palette's colours, or each in colours of its own; (N, 64, 64, 3)."""
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
    recipe = section(1)
    for at, scene in enumerate(scenes):
        draw = random.Random(f"{SEED}/picture/{at}")
        background, colours = palette(recipe, scene)
        if random_colours:
            background, *colours = [f"#{draw.randrange(1 << 24):06x}" for _ in range(1 + len(colours))]
        pictures[at] = np.asarray(draw_scene(scene, background, colours, SIZE, draw))
    return pictures


def write_captions(scenes: Sequence[Mapping[str, Any]], seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Write `CAPTIONS` of each scene (N x V in one list), and what each says of the scene's slots: (N, V, S)."""
    texts, slots = [], []
    for at, scene in enumerate(scenes):
        draw = random.Random(f"{seed}/caption/{at}")
        for style in CAPTIONS:
            told = {**scene, "style": style}
            if draw.random() < UNKNOWN_SHARE:
                told = _with_unknown_colour(told, draw)
            texts.append(caption(told, draw))
            slots.append(slots_of(told))
    return texts, np.array(slots, np.int64).reshape(len(scenes), len(CAPTIONS), -1)


def _with_unknown_colour(scene: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    word = "".join(draw.choice(letters) for letters in ["bcdfglmnprstv", "aeiou"] * draw.randint(2, 3))
    objects = [dict(one) for one in scene["objects"]]
    which = draw.randrange(len(objects) + 1)
    if which == len(objects):
        return {**scene, "background": word}
    objects[which]["colour"] = word
    return {**scene, "objects": objects}


def slot_sizes() -> list[int]:
    """Say how many values each slot of `slots_of` has."""
    attributes = section(1).scene
    thing = [len(attributes.colours) + 1, len(SHAPES) + 1, len(attributes.sizes) + 1]
    return [2, len(attributes.backgrounds), *thing * (2 + len(ALL_PLACES))]


def slots_of(scene: Mapping[str, Any]) -> list[int]:
    """Say in numbers what a caption tells: count, background, then each object and each place."""
    attributes = section(1).scene
    vocabulary: dict[str, list[str]] = {
        "colour": list(attributes.colours),
        "shape": list(SHAPES),
        "size": list(attributes.sizes),
    }
    backgrounds = list(attributes.backgrounds)
    things = [
        [words.index(one[kind]) + 1 if one[kind] in words else NOT_SAID for kind, words in vocabulary.items()]
        for one in scene["objects"]
    ]
    absent, unsaid = [0, 0, 0], [NOT_SAID] * 3
    taken = ("centre",) if len(things) == 1 else PLACES[scene["relation"]]
    at_place = dict(zip(taken, things, strict=True))
    is_told = len(things) == 1 or scene["style"] == "dense"
    places = [at_place.get(place, absent) if is_told else unsaid for place in ALL_PLACES]
    background = backgrounds.index(scene["background"]) if scene["background"] in backgrounds else NOT_SAID
    rows = [*things, *[absent] * (2 - len(things)), *places]
    return [len(things) - 1, background, *(value for row in rows for value in row)]
