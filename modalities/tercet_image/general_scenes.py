"""Scenes in the default palette, which the bundled bases know: to mix into training, and to measure forgetting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tercet.modality import NoAnswers, Resources
from tercet_image.colour import BACKGROUNDS, COLOURS
from tercet_image.plan import Scenes
from tercet_image.recipe import ImageRecipe, SceneAttributes
from tercet_image.renderer import Renderer

MEASURED, REPLAYED = 1_000_003, 1_000_033  # seeds: what is mixed in is never what is measured
QUESTIONS = 3


def general_payloads(section: ImageRecipe, seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Draw `count` pictures with captions and questions, each under its item's key; no record of the run is among them.

    They are as large, and show as many objects, as the recipe's own.
    """
    scene = SceneAttributes(objects=section.scene.objects, packages=(), label_share=0)
    world = ImageRecipe(
        size=section.size, scene=scene, captions=section.captions, questions_per_picture=QUESTIONS, test_fraction=0
    )
    scenes = Scenes(world, (), seed)
    draw = Renderer(world, Resources(seed, "en", 1, NoAnswers()))
    for number in range(count):
        item = scenes.item(number, number)
        (made,) = draw([item])
        yield item.key, dict(made.payload)


def new_names(section: ImageRecipe) -> list[str]:
    """List the colours and backgrounds that the recipe names and the default palette doesn't."""
    named = [*section.scene.colours, *section.scene.backgrounds]
    return [name for name in dict.fromkeys(named) if name not in COLOURS and name not in BACKGROUNDS]
