"""The world of the small vision-language base: scenes of our renderer, questions about them, what each patch shows.

Some colour-shape pairs are held out: no training picture shows one and no training question names one.
Shapes: B pictures, P patches of a picture, C channels.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet_image.caption import caption, questions
from tercet_image.colour import difference, parse_hex
from tercet_image.plan import Scenes, palette
from tercet_image.recipe import MIN_CONTRAST, SHAPES, ImageRecipe, SceneAttributes
from tercet_image.renderer import draw_scene

SEED = 4
SIZE, PATCH = 64, 8
SIDE = SIZE // PATCH
DESCRIBE = "Describe the picture."
REPEAT = "Repeat:"
ALONE_SHARE = 0.2  # of the scenes of one object, in the stage that teaches to tell objects apart
FIRST_TEST = 50_000_000  # scenes from here on are never trained on; the training's course was chosen by the first
FIRST_MEASURED = 60_000_000  # and the card's figures come from these
MIN_COVERAGE = 0.06  # of a patch; below it a shape's edge can't be told from the background
MASKS = ("#ff0000", "#00ff00", "#0000ff")  # drawn in these, a scene's channels are its objects' masks
SIZES = ("small", "large")
NOTHING = len(SHAPES)

SECTION = ImageRecipe(size=SIZE, questions_per_picture=3, scene=SceneAttributes(packages=(), label_share=0))
SCENES = Scenes(SECTION, (), SEED)


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `kind` is the question's attribute, `caption` or `repeat`."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Example:
    """One picture, what is asked about it, and what its patches show."""

    number: int
    scene: dict[str, Any]
    pixels: NDArray[np.uint8]
    turns: tuple[Turn, ...]
    names_P: tuple[str, ...] = ()  # in training: `small red star` or the background's colour


@dataclass(frozen=True)
class Mix:
    """What is asked of a training picture: how often its questions are drawn, and the share kept of the other tasks."""

    draws: int
    caption_share: float  # a caption has as many tokens as all questions of a picture
    easy_share: float = 1.0  # of questions for the count and the background
    repeat_share: float = 1.0


ASKS_ALL = Mix(draws=2, caption_share=0.25)
ASKS_TO_BIND = Mix(draws=4, caption_share=0.15, easy_share=0.2, repeat_share=0.1)


@dataclass(frozen=True)
class Patches:
    """Pictures and what each patch shows; colours count from 0 to 1."""

    pixels: NDArray[np.uint8]  # B x SIZE x SIZE x 3
    shape_BP: NDArray[np.int64]  # an index into SHAPES, or NOTHING
    size_BP: NDArray[np.int64]
    colour_BPC: NDArray[np.float32]
    background_BC: NDArray[np.float32]


def scene_numbers(draw: random.Random, count: int) -> list[int]:
    """Draw `count` scenes of the train split."""
    numbers: list[int] = []
    while len(numbers) < count:
        number = draw.randrange(FIRST_TEST)
        if SCENES.pair(number) not in SCENES.held_out:
            numbers.append(number)
    return numbers


def training_examples(stage: str, step: int, count: int) -> list[Example]:
    """Draw the pictures of one step: all questions that may be asked of each, mixed, and before them some captions.

    In the stage `binding` most pictures hold several objects, and most questions ask which colour has which shape.
    """
    draw = random.Random(f"{SEED}/{stage}/{step}")
    if stage != "binding":
        return [_training_example(number, draw, ASKS_ALL) for number in scene_numbers(draw, count)]
    numbers: list[int] = []
    while len(numbers) < count:
        (number,) = scene_numbers(draw, 1)
        if len(_scene(number)["objects"]) > 1 or draw.random() < ALONE_SHARE:
            numbers.append(number)
    return [_training_example(number, draw, ASKS_TO_BIND) for number in numbers]


def _training_example(number: int, draw: random.Random, mix: Mix) -> Example:
    scene = _scene(number)
    found = {turn.question: turn for _ in range(mix.draws) for turn in _turns(scene, 99, draw)}
    found[REPEAT] = _repeat(draw)
    turns = [
        turn
        for turn in found.values()
        if not _names_held_out(turn)
        and (turn.kind not in {"count", "background"} or _keeps(mix.easy_share, draw))
        and (turn.kind != "repeat" or _keeps(mix.repeat_share, draw))
    ]
    draw.shuffle(turns)
    if draw.random() < mix.caption_share:
        turns.insert(0, Turn("caption", DESCRIBE, caption(scene, draw)))
    shown_P, is_empty_P = _shown(scene, number)
    names = [f"{thing['size']} {thing['colour']} {thing['shape']}" for thing in scene["objects"]]
    names_P = (scene["background"] if empty else names[shown] for shown, empty in zip(shown_P, is_empty_P, strict=True))
    return Example(number, scene, _pixels(scene, number), tuple(turns), tuple(names_P))


def _keeps(share: float, draw: random.Random) -> bool:
    return share >= 1 or draw.random() < share


def unseen_examples(count: int, *, are_held_out: bool) -> list[Example]:
    """Give the first test pictures whose first object's pair is held out, or is not, with a recipe's own questions."""
    examples: list[Example] = []
    number = FIRST_MEASURED
    while len(examples) < count:
        if (SCENES.pair(number) in SCENES.held_out) == are_held_out:
            scene, draw = _scene(number), random.Random(f"{SEED}/test/{number}")
            turns = _turns(scene, SECTION.questions_per_picture, draw)
            examples.append(Example(number, scene, _pixels(scene, number), tuple(turns)))
        number += 1
    return examples


def is_of_first_pair(scene: dict[str, Any], turn: Turn) -> bool:
    """Say whether a question asks for the colour or the shape of the first object, which decided the split."""
    first = scene["objects"][0]
    return (turn.kind == "colour" and first["shape"] in turn.question) or (
        turn.kind == "shape" and turn.answer == f"the {first['shape']}"
    )


def corpus(count: int) -> list[str]:
    """Write the world's own text, from which the tokenizer learns its words."""
    draw = random.Random(f"{SEED}/corpus")
    lines = []
    for number in scene_numbers(draw, count):
        scene = _scene(number)
        turns = [*_turns(scene, 99, draw), Turn("caption", DESCRIBE, caption(scene, draw)), Turn("repeat", REPEAT, "")]
        lines += [f"USER: \n{turn.question} ASSISTANT: {turn.answer}" for turn in turns]
    return lines


def patches(step: int, count: int) -> Patches:
    """Draw scenes in colours chosen at random, without names, and say what each patch shows."""
    draw = random.Random(f"{SEED}/vision/{step}")
    drawn = [_patches_of(number, draw) for number in scene_numbers(draw, count)]
    return Patches(*(np.stack(column) for column in zip(*drawn, strict=True)))


def _patches_of(number: int, draw: random.Random) -> tuple[NDArray[Any], ...]:
    scene = _scene(number)
    background, colours = _random_palette(len(scene["objects"]), draw)
    shown_P, is_empty_P = _shown(scene, number)
    shape_of = np.array([SHAPES.index(thing["shape"]) for thing in scene["objects"]])
    size_of = np.array([SIZES.index(thing["size"]) for thing in scene["objects"]])
    colour_of = np.array([parse_hex(colour) for colour in colours], np.float32) / 255
    return (
        np.asarray(draw_scene(scene, background, colours, SIZE, _hand(number))),
        np.where(is_empty_P, NOTHING, shape_of[shown_P]),
        size_of[shown_P],
        colour_of[shown_P],
        np.array(parse_hex(background), np.float32) / 255,
    )


def _shown(scene: dict[str, Any], number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Say for each patch which object covers most of it, and whether none does."""
    masks = draw_scene(scene, "#000000", MASKS[: len(scene["objects"])], SIZE, _hand(number))
    coverage_PC = _by_patch(np.asarray(masks)).mean(1) / 255
    return coverage_PC.argmax(1), coverage_PC.max(1) < MIN_COVERAGE


def _by_patch(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cut a picture into P x pixels x 3, patches in reading order."""
    cut = pixels.reshape(SIDE, PATCH, SIDE, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(SIDE * SIDE, PATCH * PATCH, 3).astype(np.float64)


def _random_palette(count: int, draw: random.Random) -> tuple[str, list[str]]:
    """Draw a background and colours that stand out from it as a recipe's must."""
    background = _random_hex(draw)
    colours: list[str] = []
    while len(colours) < count:
        colour = _random_hex(draw)
        if difference(colour, background) >= MIN_CONTRAST:
            colours.append(colour)
    return background, colours


def _random_hex(draw: random.Random) -> str:
    return f"#{draw.randrange(1 << 24):06x}"


def _repeat(draw: random.Random) -> Turn:
    """Ask for a made-up word: it teaches the model to write pieces that the world's own words never use."""
    if draw.random() < 0.5:
        word = "".join(draw.choice("bcdfghjklmnprstvwz") + draw.choice("aeiouy") for _ in range(draw.randint(2, 4)))
    else:
        word = "".join(draw.choice("abcdefghijklmnopqrstuvwxyz-") for _ in range(draw.randint(3, 7)))
    return Turn("repeat", f"{REPEAT} {word}", word)


def _turns(scene: dict[str, Any], count: int, draw: random.Random) -> list[Turn]:
    attributes = SECTION.scene
    asked = questions(scene, count, list(attributes.colours), list(attributes.shapes), draw)
    return [Turn(one["attribute"], one["question"], one["answer"]) for one in asked]


def _names_held_out(turn: Turn) -> bool:
    """Say whether a question asks whether a held-out pair is there; in training the answer would always be no."""
    return turn.kind == "presence" and any(
        turn.question.endswith(f" {colour} {shape}?") for colour, shape in SCENES.held_out
    )


def _scene(number: int) -> dict[str, Any]:
    scene: dict[str, Any] = SCENES.item(number, number).spec["scene"]
    return scene


def _pixels(scene: dict[str, Any], number: int) -> NDArray[np.uint8]:
    return np.asarray(draw_scene(scene, *palette(SECTION, scene), SIZE, _hand(number)))


def _hand(number: int) -> random.Random:
    """Give the randomness of one drawing: the same places and sizes for the picture and its masks."""
    return random.Random(f"{SEED}/picture/{number}")
