"""Questions to `vision-language`, of suites or of a user, and how their answers are given, shown and judged."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from PIL import Image
from tests.modalities.image.conftest import quietly
from tests.modalities.image.vision_language.conftest import CONTEXT

from tercet.errors import SourceError
from tercet.evaluate.run import evaluate_recipe
from tercet.train.run import train_recipe
from tercet.train.task import Example
from tercet_image.answers import ANSWER_ERRORS, FALSE_NAMES, KNOWN_ERRORS, count_answer, mentions, normal
from tercet_image.general_scenes import MEASURED, REPLAYED, general_payloads, new_names
from tercet_image.plan import Scenes
from tercet_image.vision_language import VisionLanguage
from tercet_image.vl_data import DESCRIBE
from tercet_image.vl_reader import open_picture
from tercet_image.vl_suites import NUM_GENERAL, blinded


def test_a_question_is_shown_with_its_picture(task):
    shown = task.show_example(Example("1/0", "1", "<two>", {"picture": b"png", "question": "How many?"}))
    assert shown.text == "(1 picture) How many? <two>"
    assert '<img src="data:image/png;base64,cG5n" alt="How many? &lt;two&gt;">' in shown.html
    assert task.show_answer("three").html == "<figure><figcaption>three</figcaption></figure>"


def test_an_answer_is_right_by_its_words():
    assert normal("The Star!") == "star"
    assert count_answer("What is teal?", "the star", "Star.", ["teal"]) == {ANSWER_ERRORS: (0.0, 1.0)}
    counted = count_answer("What colour is the star?", "red", "light teal", ["teal"])
    assert counted == {ANSWER_ERRORS: (1.0, 1.0), KNOWN_ERRORS: (1.0, 1.0), FALSE_NAMES: (1.0, 1.0)}
    assert count_answer("How many?", "two", "two", ["teal"])[FALSE_NAMES] == (0.0, 1.0)
    assert not mentions("a tealish star", ["teal"])


def test_suites_hold_unseen_pairs_the_same_questions_blind_and_the_default_palette(task, run_dir, recipe):
    suites = {suite.role: suite for suite in task.suites(run_dir)}
    assert list(suites) == ["primary", "other", "general"]
    sighted, blind = suites["primary"].examples, suites["other"].examples
    assert [one.content["question"] for one in sighted] == [one.content["question"] for one in blind]
    assert all(open_picture(one.content["picture"], "").getextrema() == ((0, 0),) * 3 for one in blind)
    pairs = {f"{colour} {shape}" for colour, shape in Scenes(task.section, (), recipe.sections.seed).held_out}
    assert {one.source for one in sighted} == {one.source for one in blind} == pairs
    assert len({one.source for one in suites["general"].examples}) == NUM_GENERAL
    assert new_names(task.section) == ["teal", "mustard"]
    assert not any(
        mentions(f"{one.content['question']} {one.reference}", task._names) for one in suites["general"].examples
    )
    measured = {payload["image"] for _, payload in general_payloads(task.section, MEASURED, 60)}
    assert not measured & {payload["image"] for _, payload in general_payloads(task.section, REPLAYED, 60)}


def test_the_users_own_pictures_bound_forgetting_too(recipe, run_dir, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(file, "PNG")
    (tmp_path / "shelf.png").write_bytes(file.getvalue())
    rows = [{"file": "shelf.png", "questions": [{"question": "What colour?", "answer": "red"}]}]

    def suites():
        (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return VisionLanguage(recipe.replaced(evaluate={"general": str(tmp_path)})).suites(run_dir)

    own = suites()[-1]
    assert (own.name, own.role, len(own.examples)) == (f"your {tmp_path.name}", "general", 1)
    assert (own.examples[0].content["question"], own.examples[0].reference) == ("What colour?", "red")
    assert open_picture(own.examples[0].content["picture"], "").size == (20, 30)
    rows[0]["questions"] = []
    with pytest.raises(SourceError, match=r"evaluate.general: .*shelf.png: has no questions"):
        suites()


def test_the_blind_picture_is_as_large_as_the_real_one(task, run_dir):
    example = task.suites(run_dir)[0].examples[0]
    assert open_picture(blinded(example).content["picture"], "").size == (64, 64)


def test_an_answer_does_not_depend_on_how_many_are_asked(task, model, run_dir):
    examples = task.suites(run_dir)[0].examples[:3]
    told: list[tuple[int, int]] = []
    together = list(task.answer(model, examples, lambda *at: told.append(at)))
    assert together == [said for one in examples for said in task.answer(model, [one], quietly)]
    assert told == [(3, 3)]


def test_a_question_without_room_is_told_so_and_its_neighbours_are_answered(task, model, run_dir):
    examples = list(task.suites(run_dir)[0].examples[:2])
    content = {**examples[0].content, "question": "what? " * 30}
    asked = [dataclasses.replace(examples[0], content=content), examples[1]]
    first, second = task.answer(model, asked, quietly)
    assert first.startswith("(no answer: ")
    assert first.endswith(f"leave no room in {CONTEXT})")
    assert [second] == list(task.answer(model, [examples[1]], quietly))


def test_a_user_asks_about_a_file(task, tmp_path, run_dir):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    (tmp_path / "a b.png").write_bytes(file.getvalue())
    example = task.read_input(f"{tmp_path / 'a b.png'}: What colour is it?")
    assert example.content["question"] == "What colour is it?"
    assert open_picture(example.content["picture"], "").getpixel((0, 0)) == (255, 0, 0)
    assert task.read_input(str(tmp_path / "a b.png")).content["question"] == DESCRIBE
    with pytest.raises(SourceError, match="no picture that can be read; write: picture.png: a question"):
        task.read_input("nowhere.png: What?")


def test_a_users_picture_is_set_upright_laid_on_white_and_held_against_the_largest_side(task, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (16, 8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    Image.new("RGB", (task.section.max_example_side + 1, 8)).save(tmp_path / "wide.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert open_picture(task.read_input(f"{tmp_path}/turned.jpg").content["picture"], "").size == (8, 16)
    clear = open_picture(task.read_input(f"{tmp_path}/clear.png").content["picture"], "")
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(SourceError, match=r"wide\.png: 2049 x 8 pixels, above 2048 a side"):
        task.read_input(f"{tmp_path}/wide.png: What?")
    with pytest.raises(SourceError, match=r"notes\.txt: not a picture that can be read; save it as one of PNG"):
        task.read_input(f"{tmp_path}/notes.txt")


def test_a_recipe_is_trained_and_judged_and_exported(recipe, run_dir, root, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    quick = recipe.replaced(evaluate={"limit": 8})
    trained = train_recipe(quick)
    assert trained.steps == 3
    found = evaluate_recipe(quick)
    assert found["suites"]["held_out_combinations"]["leading"] == ANSWER_ERRORS
    assert set(found["suites"]) == {"held_out_combinations", "blind", "general"}
    VisionLanguage(quick).export(root / "base", trained.adapter, tmp_path / "out")
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out").config.model_type == "llava"
    assert AutoProcessor.from_pretrained(tmp_path / "out").chat_template
