"""Draw a scene exactly: antialiased shapes at known places, so that its caption and answers are true."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image, ImageDraw, ImageFont

from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json
from tercet.records import Item, Made, ModelUse
from tercet_image.caption import caption, questions
from tercet_image.colour import RGB, difference, parse_hex
from tercet_image.plan import Scenes, palette
from tercet_image.recipe import ImageRecipe

SUPERSAMPLE = 4
RENDERER = ModelUse("tercet:renderer-2", "", "Apache-2.0", "free")
PLACES = {1: ((0.5, 0.5),), 2: ((0.28, 0.5), (0.72, 0.5)), 3: ((0.26, 0.3), (0.74, 0.3), (0.5, 0.74))}
RADIUS = {"small": 0.11, "large": 0.19}  # of the picture's width
INK, PAPER = "#1b1b1f", "#ffffff"
Point = tuple[float, float]


class Renderer:
    """Draws planned scenes with Pillow; the same scene gives the same pixels."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 32

    def __init__(self, section: ImageRecipe, resources: Resources) -> None:
        self.section, self.resources = section, resources
        self.scenes = Scenes(section, (), resources.recipe_seed)

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        """Draw each item's scene, caption it and ask about it."""
        shapes, colours = list(self.section.scene.shapes), list(self.section.scene.colours)
        count = self.section.questions_per_picture
        for item in items:
            draw = random.Random(self.resources.seed_for(item, "generate"))
            scene = item.spec["scene"]
            picture = io.BytesIO()
            draw_scene(scene, *palette(self.section, scene), self.section.size, draw).save(picture, "PNG")
            payload = {
                "image": picture.getvalue(),
                "caption": caption(scene, draw),
                "questions": questions(scene, count, colours, shapes, draw, self.scenes.unnamed(item.split)),
                "scene": canonical_json(scene),
            }
            yield Made(payload, RENDERER, {"size": self.section.size})


def draw_scene(
    scene: Mapping[str, Any], background: str, colours: Sequence[str], size: int, draw: random.Random
) -> Image.Image:
    """Draw a scene as an RGB picture of `size` x `size` pixels."""
    large = size * SUPERSAMPLE
    image = Image.new("RGB", (large, large), parse_hex(background))
    canvas = ImageDraw.Draw(image)
    for thing, colour, (x, y) in zip(scene["objects"], colours, _places(scene, draw), strict=True):
        if thing["label"]:
            _package(canvas, thing, colour, (x * large, y * large), large)
        else:
            radius = RADIUS[thing["size"]] * large * draw.uniform(0.94, 1.06)
            draw_shape(canvas, thing["shape"], (x * large, y * large), radius, parse_hex(colour), parse_hex(background))
    return image.resize((size, size), Image.Resampling.BOX)


def _places(scene: Mapping[str, Any], draw: random.Random) -> list[Point]:
    """Give the objects' centres: the first two stand in the scene's relation, a little moved at random."""
    count, relation = len(scene["objects"]), scene["relation"]
    places = list(PLACES[count])
    if count > 1:
        if relation in {"right of", "below"}:
            places[0], places[1] = places[1], places[0]
        if relation in {"above", "below"}:
            places = [(y, x) for x, y in places]
    jitter = 0.05 if count == 1 else 0.02
    return [(x + draw.uniform(-jitter, jitter), y + draw.uniform(-jitter, jitter)) for x, y in places]


def draw_shape(canvas: ImageDraw.ImageDraw, shape: str, at: Point, radius: float, fill: RGB, background: RGB) -> None:
    """Draw one shape around the point `at`; `background` fills what a ring or moon leaves open. All in pixels."""
    x, y = at
    if shape in {"circle", "ring", "moon"}:
        canvas.ellipse(_box(x, y, radius), fill=fill)
        if shape == "ring":
            canvas.ellipse(_box(x, y, radius * 0.55), fill=background)
        elif shape == "moon":
            canvas.ellipse(_box(x + radius * 0.45, y - radius * 0.1, radius * 0.85), fill=background)
    elif shape == "heart":
        canvas.polygon([_heart_point(x, y, radius, step / 60) for step in range(60)], fill=fill)
    elif shape == "cross":
        arm = radius * 0.36
        canvas.rectangle((x - radius, y - arm, x + radius, y + arm), fill=fill)
        canvas.rectangle((x - arm, y - radius, x + arm, y + radius), fill=fill)
    elif shape == "star":
        radii = [radius if corner % 2 == 0 else radius * 0.45 for corner in range(10)]
        canvas.polygon([_corner(x, y, size, corner / 10) for corner, size in enumerate(radii)], fill=fill)
    else:
        corners, turn = {"square": (4, 0.125), "triangle": (3, 0.0), "diamond": (4, 0.0), "hexagon": (6, 0.0)}[shape]
        canvas.polygon([_corner(x, y, radius, corner / corners + turn) for corner in range(corners)], fill=fill)


def _box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return (x - radius, y - radius, x + radius, y + radius)


def _corner(x: float, y: float, radius: float, turn: float) -> Point:
    """Go `turn` (a fraction of a full turn) around the circle, from the top."""
    angle = 2 * math.pi * turn
    return (x + radius * math.sin(angle), y - radius * math.cos(angle))


def _heart_point(x: float, y: float, radius: float, turn: float) -> Point:
    angle = 2 * math.pi * turn
    across = 16 * math.sin(angle) ** 3
    up = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
    return (x + radius * across / 16, y - radius * up / 16)


def _package(canvas: ImageDraw.ImageDraw, thing: Mapping[str, str], colour: str, at: Point, large: int) -> None:
    """Draw a box or bottle with its label in the largest type that fits."""
    x, y = at
    wide, high = large * 0.2, large * (0.15 if thing["shape"] == "box" else 0.2)
    canvas.rounded_rectangle((x - wide, y - high, x + wide, y + high), large * 0.02, fill=parse_hex(colour))
    if thing["shape"] == "bottle":
        canvas.rectangle((x - wide * 0.5, y - high - large * 0.06, x + wide * 0.5, y - high), fill=parse_hex(colour))
    paper = PAPER if difference(colour, PAPER) > 20 else "#dfe3e8"
    margin = large * 0.02
    canvas.rectangle((x - wide + margin, y - high * 0.5, x + wide - margin, y + high * 0.5), fill=parse_hex(paper))
    room, size = 2 * (wide - 1.5 * margin), high * 0.6
    while canvas.textlength(thing["label"], ImageFont.load_default(size)) > room and size > 4:
        size *= 0.92
    canvas.text((x, y), thing["label"], fill=parse_hex(INK), font=ImageFont.load_default(size), anchor="mm")
