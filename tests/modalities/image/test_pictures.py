import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tercet.errors import RecipeError, UsageError
from tercet.modality import NoAnswers, Planning, Resources
from tercet.recipe import load_recipe
from tercet.records import Candidate
from tercet.sources import Term
from tercet.train.task import find_task
from tercet_image.caption import OPPOSITE, name_of
from tercet_image.colour import parse_hex
from tercet_image.diffusion import DiffusionPictures
from tercet_image.gates import Blank, NearDuplicates
from tercet_image.payload import payload
from tercet_image.plan import HELD_OUT, Scenes, plan
from tercet_image.recipe import Diffusion, ImageRecipe
from tercet_image.renderer import Renderer
from tercet_image.show import show

PLANNING = Planning(3, "en", terms=[Term("atorvastatin"), Term("<b>metformin</b>")])
RESOURCES = Resources(3, "en", 1, NoAnswers())


def make(count=200, **more):
    section = ImageRecipe(pictures=count, **more)
    scenes = plan(section, PLANNING)
    items = [scenes.item(index) for index in range(count)]
    return section, [Candidate(i, m.payload) for i, m in zip(items, Renderer(section, RESOURCES)(items), strict=True)]


@pytest.fixture(scope="module")
def pictures():
    return make()


def pixels(candidate):
    return np.asarray(Image.open(io.BytesIO(candidate.payload["image"])).convert("RGB"), int)


def test_every_colour_that_a_scene_names_is_on_the_picture(pictures):
    section, made = pictures
    for candidate in made:
        scene = candidate.item.spec["scene"]
        found = pixels(candidate).reshape(-1, 3)
        for thing in scene["objects"]:
            near = np.abs(found - parse_hex(section.scene.colours[thing["colour"]])).max(axis=1) <= 2
            assert near.sum() >= 40, scene
        assert (np.abs(found - parse_hex(section.scene.backgrounds[scene["background"]])).max(axis=1) <= 2).mean() > 0.3


def test_objects_stand_in_the_relation_that_the_caption_says(pictures):
    section, made = pictures
    checked = 0
    for candidate in made:
        scene = candidate.item.spec["scene"]
        first, *others = scene["objects"]
        if not others or len({thing["colour"] for thing in scene["objects"]}) < len(scene["objects"]):
            continue
        (y0, x0), (y1, x1) = (
            np.argwhere(
                np.abs(pixels(candidate) - parse_hex(section.scene.colours[t["colour"]])).max(axis=2) <= 2
            ).mean(0)
            for t in (first, others[0])
        )
        truth = {"left of": x0 < x1, "right of": x0 > x1, "above": y0 < y1, "below": y0 > y1}
        assert truth[scene["relation"]], scene
        checked += 1
    assert checked > 50


def test_answers_are_true_of_the_scene(pictures):
    _, made = pictures
    answers = []
    for candidate in made:
        scene = candidate.item.spec["scene"]
        things = scene["objects"]
        for question in candidate.payload["questions"]:
            text, answer, kind = question["question"], question["answer"], question["attribute"]
            if kind == "count":
                assert answer == ("no", "one", "two", "three")[len(things)]
            elif kind == "colour":
                assert [t["colour"] for t in things if f"the {t['shape']}?" in text] == [answer]
            elif kind == "presence":
                there = any(text.endswith(f" {t['colour']} {t['shape']}?") for t in things)
                assert answer == ("yes" if there else "no")
                answers.append(answer)
            elif kind == "relation":
                is_said = f" {scene['relation']} the {name_of(things[1])}" in text
                assert (answer == "yes") == is_said
                assert is_said or OPPOSITE[scene["relation"]] in text
            elif kind == "label":
                assert answer in [t["label"] for t in things]
    assert 0.3 < answers.count("yes") / len(answers) < 0.7


def test_held_out_pairs_appear_in_no_training_picture(pictures):
    section, made = pictures
    held_out = plan(section, PLANNING).parts[0][0].held_out
    assert len(held_out) == 8
    splits = [candidate.item.split for candidate in made]
    assert 0.05 < splits.count(HELD_OUT) / len(splits) < 0.2
    for candidate in made:
        if candidate.item.split == "train":
            plain = [t for t in candidate.item.spec["scene"]["objects"] if not t["label"]]
            assert not {(t["colour"], t["shape"]) for t in plain} & held_out


def named_held_out(section, questions):
    held_out = plan(section, PLANNING).parts[0][0].held_out
    asked = {one["question"] for one in questions if one["attribute"] == "presence"}
    return {pair for pair in held_out if any(one.endswith(f" {' '.join(pair)}?") for one in asked)}


def test_training_questions_never_name_a_held_out_pair(pictures):
    section, made = pictures
    asked: dict[str, list[Any]] = {"train": [], HELD_OUT: []}
    for candidate in made:
        asked[candidate.item.split] += candidate.payload["questions"]
    assert not named_held_out(section, asked["train"])
    assert named_held_out(section, asked[HELD_OUT])


def test_neither_do_those_about_pictures_of_a_diffusion_model():
    diffusion = Diffusion(pictures=200, model="path:./model", keep_questions=True)
    section = ImageRecipe(diffusion=diffusion)
    painter: Any = object()  # never asked
    generator = DiffusionPictures(section, RESOURCES, painter)
    scenes = plan(section, PLANNING)
    asked: dict[str, list[Any]] = {"train": [], HELD_OUT: []}
    for number in range(200):
        item = scenes.item(number)
        asked[item.split] += generator._tell(item, random.Random(number))["questions"]
    assert not named_held_out(section, asked["train"])
    assert named_held_out(section, asked[HELD_OUT])


def test_a_raised_quota_keeps_the_old_items_and_no_two_share_a_key():
    few, many = (plan(ImageRecipe(pictures=count), PLANNING) for count in (20, 60))
    keys = [many.item(index).key for index in range(60)]
    assert keys[:20] == [few.item(index).key for index in range(20)]
    assert len(set(keys)) == 60


def test_the_same_item_gives_the_same_pixels_in_any_batch(pictures):
    section, made = pictures
    alone = next(iter(Renderer(section, RESOURCES)([made[7].item])))
    assert alone.payload == made[7].payload


def test_default_pictures_pass_the_gates_and_planted_faults_do_not(pictures):
    section, made = pictures
    assert all(verdict.passed for verdict in Blank(section.gates.blank, RESOURCES)(made))
    passed = [verdict.passed for verdict in NearDuplicates(section.gates.near_duplicates, RESOURCES)(made)]
    assert sum(passed) >= 0.97 * len(passed)
    again = list(NearDuplicates(section.gates.near_duplicates, RESOURCES)([made[0], made[1], made[0]]))
    assert [verdict.passed for verdict in again] == [True, True, False]
    for picture, reason in ((Image.new("RGB", (64, 64)), "blank"), (_faint(), "low contrast")):
        file = io.BytesIO()
        picture.save(file, "PNG")
        fault = Candidate(made[0].item, {**made[0].payload, "image": file.getvalue()})
        (verdict,) = Blank(section.gates.blank, RESOURCES)([fault])
        assert (verdict.passed, verdict.reason) == (False, reason)


def _faint():
    grey = np.full((64, 64, 3), 100, np.uint8)
    grey[::2] = 112
    return Image.fromarray(grey)


def test_the_fingerprint_is_of_pixels_not_of_the_encoding(pictures):
    _, made = pictures
    file = io.BytesIO()
    Image.open(io.BytesIO(made[0].payload["image"])).save(file, "PNG", compress_level=0)
    assert file.getvalue() != made[0].payload["image"]
    assert payload.fingerprint({**made[0].payload, "image": file.getvalue()}) == payload.fingerprint(made[0].payload)
    assert payload.fingerprint(made[1].payload) != payload.fingerprint(made[0].payload)


def test_a_hostile_term_stays_inert_on_the_page(pictures):
    _, made = pictures
    hostile = next(c for c in made if any("<b>" in t["label"] for t in c.item.spec["scene"]["objects"]))
    assert "<b>metformin" not in show(hostile.payload).html
    assert json.loads(hostile.payload["scene"]) == hostile.item.spec["scene"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("scene: {colours: {red: '#ff0000', crimson: '#fb0101'}}", "look alike"),
        ("scene: {colours: {red: '#ff0000', blue: 'blue'}}", "is not a colour; write #rrggbb"),
        ("scene: {objects: [3, 1]}", "no range within 1 to 3"),
        ("sise: 64", "unknown key; did you mean 'size'"),
        ("size: 100", "multiple of 8"),
    ],
)
def test_a_bad_brand_sheet_is_refused_with_the_reason(tmp_path, more, said):
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nname: r\nmodalities:\n  image: {{pictures: 3, {more}}}\n")
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)


@pytest.mark.parametrize("name", ["brand-vqa", "brand-pictures"])
def test_the_shipped_recipes_hold_enough_pairs_out_to_be_resampled(name):
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / f"{name}.yaml")
    section: Any = recipe.sections.modalities
    assert len(Scenes(section.image, (), recipe.sections.seed).held_out) >= 15
    find_task(recipe)  # refuses no colour of its own


@pytest.mark.parametrize("task", ["vision-language", "text-to-image"])
def test_a_colour_that_general_scenes_call_otherwise_is_refused(tmp_path, task):
    def recipe(name):
        colours = f"{{{name}: '#e5383c', azure: '#35b5ff'}}"
        scene = f"{{colours: {colours}, shapes: [star, ring, moon]}}"
        text = f"version: 1\nname: r\nmodalities: {{image: {{scene: {scene}}}}}\ntrain: {{task: {task}}}\n"
        (tmp_path / "r.yaml").write_text(text)
        return load_recipe(tmp_path / "r.yaml")

    find_task(recipe("red"))
    said = (
        r"r.yaml: .*\.colours: crimson #e5383c looks like red #e5383b of the default palette \(delta E 1, at least 12"
    )
    with pytest.raises(UsageError, match=said):
        find_task(recipe("crimson"))
