"""How painted pictures are judged: scenes that our own renderer drew, right and wrong."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from PIL import Image

from tercet.recipe import load_recipe
from tercet.train.task import Example, Shows
from tercet_image.plan import palette
from tercet_image.renderer import draw_scene
from tercet_image.t2i_judging import (
    ATTRIBUTE_ERRORS,
    DIVERSITY,
    FALSE_COLOURS,
    OTHER_ERRORS,
    count_pictures,
    patch_difference,
    picture_files,
    read_pictures,
    write_pictures,
)
from tercet_image.text_to_image import TextToImage

RECIPE = """
version: 1
name: brand
modalities:
  image:
    size: 64
    scene: {shapes: [circle, square, star], colours: {teal: '#008080', mustard: '#c9a227', red: '#e5383b'}}
train: {task: text-to-image}
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("brand") / "recipe.yaml"
    path.write_text(RECIPE)
    return TextToImage(load_recipe(path))


def scene_of(colour: str, shape: str, background: str = "white", style: str = "dense") -> dict[str, Any]:
    thing = {"shape": shape, "colour": colour, "size": "large", "label": ""}
    other = {"shape": "square", "colour": "red", "size": "small", "label": ""}
    return {"background": background, "relation": "left of", "objects": [thing, other], "style": style}


def paint(task: TextToImage, scene: dict[str, Any], seed: int = 0) -> Image.Image:
    return draw_scene(scene, *palette(task.section, scene), 64, random.Random(seed))


def test_the_right_picture_has_no_errors_and_each_wrong_attribute_is_counted(task):
    scene = scene_of("teal", "star")
    counts = count_pictures([paint(task, scene, at) for at in (0, 1)], scene, task.section.scene, is_general=False)
    assert counts[ATTRIBUTE_ERRORS] == (0, 12) and counts[OTHER_ERRORS] == (0, 10)
    assert 0 < counts[DIVERSITY][0] < 0.1 and FALSE_COLOURS not in counts
    wrong = paint(task, scene_of("mustard", "circle"))
    counts = count_pictures([wrong], scene, task.section.scene, is_general=False)
    assert (counts["colour errors"], counts["shape errors"]) == ((1, 1), (1, 1))
    assert counts[ATTRIBUTE_ERRORS] == (2, 6) and counts[OTHER_ERRORS] == (1, 5)
    assert DIVERSITY not in counts


def test_a_short_caption_tells_no_relation(task):
    scene = scene_of("teal", "star", style="short")
    counts = count_pictures([paint(task, scene)], scene, task.section.scene, is_general=False)
    assert counts[ATTRIBUTE_ERRORS] == (0, 5) and "relation errors" not in counts


def test_a_new_colour_in_a_general_scene_is_noticed(task):
    scene = {**scene_of("red", "star"), "objects": scene_of("red", "star")["objects"][:1]}
    right = count_pictures([paint(task, scene)], scene, task.section.scene, is_general=True)
    painted = {**scene, "objects": [{**scene["objects"][0], "colour": "teal"}]}
    wrong = count_pictures([paint(task, painted)], scene, task.section.scene, is_general=True)
    assert (right[FALSE_COLOURS], wrong[FALSE_COLOURS]) == ((0, 1), (1, 1))


def test_units_do_not_depend_on_the_picture(task):
    scene = scene_of("red", "star", style="short")
    blank = Image.new("RGB", (64, 64))
    units = [
        {name: pair[1] for name, pair in count_pictures([one] * 2, scene, task.section.scene, is_general=True).items()}
        for one in (paint(task, scene), blank)
    ]
    assert units[0] == units[1]


def test_pictures_survive_being_written(task):
    pictures = [paint(task, scene_of("teal", "star"), at) for at in (0, 1)]
    assert [one.tobytes() for one in read_pictures(write_pictures(pictures))] == [one.tobytes() for one in pictures]
    assert patch_difference([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")]) == 1
    assert patch_difference([pictures[0], pictures[0]]) == 0


def test_a_caption_and_its_pictures_are_shown_as_pictures(task):
    answer = write_pictures([paint(task, scene_of("teal", "star"), at) for at in (0, 1)])
    assert isinstance(task, Shows)
    shown = task.show_answer(answer)
    assert shown.text == "(2 pictures)"
    assert shown.html.count("<img ") == 2
    assert all(f"data:image/png;base64,{base64.b64encode(one).decode()}" in shown.html for one in picture_files(answer))
    asked = task.show_example(Example("1", "1", "{}", {"caption": "A <b>teal</b>\x1b star.", "seeds": [1]}))
    assert asked.text == "A <b>teal</b>  star."
    assert asked.html == "<figure><figcaption>A &lt;b&gt;teal&lt;/b&gt;  star.</figcaption></figure>"
