"""Painted answers of `text-to-image`: diffusers paints the same, and held-out scenes judge them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.modalities.image.conftest import quietly
from tests.modalities.image.text_to_image.conftest import adapted

from tercet.errors import SourceError, UsageError
from tercet.evaluate.run import evaluate_recipe
from tercet.pipeline.run import run_recipe
from tercet.store.shards import read_records
from tercet.train.adapters import save
from tercet.train.loading import load
from tercet.train.run import train_recipe
from tercet.train.task import WritesLayout
from tercet_image import t2i_suites
from tercet_image.plan import HELD_OUT, Scenes
from tercet_image.t2i_judging import ATTRIBUTE_ERRORS, DIVERSITY, read_pictures
from tercet_image.t2i_layout import LAYOUT
from tercet_image.t2i_suites import caption_example
from tercet_image.text_to_image import TextToImage

# what a user's script does, in a process that has not imported tercet
SCRIPT = """
import json, sys
import torch
from diffusers import DiffusionPipeline

base, adapter, asked, out = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(base)
pipeline.set_progress_bar_config(disable=True)
pipeline.load_lora_weights(adapter)
asked = json.loads(asked)
seeds = [torch.Generator("cpu").manual_seed(seed) for seed in asked["seeds"]]
made = pipeline(asked["captions"], generator=seeds, num_inference_steps=2, guidance_scale=3.0, width=32, height=32)
for at, picture in enumerate(made.images):
    picture.save(f"{out}/{at}.png")
assert not [name for name in sys.modules if name.split(".")[0].startswith("tercet")]
"""


def test_diffusers_paints_with_the_adapter_what_we_paint(task, root, tmp_path):
    assert issubclass(TextToImage, WritesLayout)
    examples = [task.read_input(f"A {word} star.") for word in ("teal", "red", "mustard", "big")]
    model = adapted(task, root)
    save(model, tmp_path / "adapter", {"base": "", "base_digest": "x"}, scale=0.5)
    task.write_layout(tmp_path / "adapter")
    tuned = load(task.load_base(root / "base"), tmp_path / "adapter", "x")
    (ours, *_), bare = (
        list(task.answer(tuned, examples, quietly)),
        list(task.answer(task.load_base(root / "base"), examples, quietly)),
    )
    assert ours != bare[0]
    # a pass of ours holds 16 pictures
    pairs = [(one.content["caption"], seed) for one in examples for seed in one.content["seeds"]]
    pairs += [pairs[-1]] * (16 - len(pairs))
    asked = {"captions": [caption for caption, _ in pairs], "seeds": [seed for _, seed in pairs]}
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()  # what diffusers reads is its own file
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            SCRIPT,
            root / "base",
            tmp_path / "adapter",
            json.dumps(asked),
            tmp_path,
        ],
        check=True,
    )
    theirs = [Image.open(tmp_path / f"{at}.png") for at in range(2)]
    assert [one.tobytes() for one in theirs] == [one.tobytes() for one in read_pictures(ours)]


def test_a_picture_does_not_depend_on_how_many_are_asked(task, model):
    examples = [task.read_input(f"A {word} star.") for word in ("teal", "red", "big")]
    told: list[tuple[int, int]] = []
    together = list(task.answer(model, examples, lambda *at: told.append(at)))
    assert together == [said for one in examples for said in task.answer(model, [one], quietly)]
    assert told[-1] == (3, 3)
    assert all(picture.size == (32, 32) for said in together for picture in read_pictures(said))


def test_more_captions_than_a_pass_are_answered_in_order(task, model):
    examples = [task.read_input(f"A star {number}.") for number in range(11)]  # 22 pictures
    answers = list(task.answer(model, examples, quietly))
    assert len(answers) == 11
    assert answers[9:] == list(task.answer(model, examples[9:], quietly))


def test_errors_go_by_the_held_out_pair_and_by_the_general_scene(task, run_dir, recipe):
    held_out, general = task.suites(run_dir)
    pairs = {f"{colour} {shape}" for colour, shape in Scenes(task.section, (), recipe.sections.seed).held_out}
    assert {one.source for one in held_out.examples} == pairs and len(held_out.examples) > len(pairs)
    assert len({one.source for one in general.examples}) == len(general.examples)


def test_scenes_with_labels_are_trained_on_and_never_judged(root, recipe, monkeypatch):
    (root / "terms.txt").write_text("metformin\n")
    image = recipe.data["modalities"]["image"]
    labelled = recipe.replaced(
        name="labelled",
        sources={"terms": "terms.txt"},
        modalities={"image": {**image, "scene": {**image["scene"], "objects": [2, 2], "label_share": 0.5}}},
        train={**recipe.data["train"], "early_stop": {"share": 0.4}},
    )
    run_recipe(labelled)
    task, run_dir = TextToImage(labelled), root / "runs" / "labelled"
    held_out = list(read_records(run_dir, "image", HELD_OUT))
    told, untold = (
        [one for one in held_out if ("metformin" in one.payload["caption"]) is has] for has in (True, False)
    )
    assert {one.id for one in task.suites(run_dir)[0].examples} == {one.id for one in untold}
    watched = [one.content["caption"] for one in task.validation(run_dir)]
    assert watched and not [caption for caption in watched if "metformin" in caption]
    assert any("metformin" in one.payload["caption"] for one in read_records(run_dir, "image", "train"))
    monkeypatch.setattr(t2i_suites, "held_out_records", lambda *_: told)
    with pytest.raises(UsageError, match=r"scene\.label_share: 0\.5 writes a term into every held-out picture"):
        task.suites(run_dir)


def test_a_caption_over_the_context_is_not_painted_in_half(task, model):
    long = "A star, " * 40
    with pytest.raises(
        SourceError, match=r"'A star, .*'\.\.\.: the base reads at most 192 tokens; write a shorter one"
    ):
        list(task.answer(model, [task.read_input(long)], quietly))
    scene = {"objects": [], "background": "white", "style": "short"}
    judged, whole = (
        caption_example(caption, {"scene": json.dumps(scene), "caption": caption}, "a pair", is_general=False)
        for caption in (long, "A star.")
    )
    first, second, third = task.answer(model, [judged, whole, judged], quietly)
    assert [len(read_pictures(one)) for one in (first, second, third)] == [0, 2, 0]
    assert [second] == list(task.answer(model, [whole], quietly))
    assert list(task.answer(model, [judged], quietly)) == [first]
    assert task.measure(judged, first).counts == {}
    assert task.show_answer(first).text == "not painted: the caption is longer than the base can read"


def test_a_recipe_is_trained_and_judged_and_exported(recipe, root, tmp_path):
    from diffusers import DiffusionPipeline

    quick = recipe.replaced(evaluate={"limit": 4})
    trained = train_recipe(quick)
    assert trained.steps == 3 and (trained.adapter / LAYOUT).is_file()
    found = evaluate_recipe(quick)
    suite = found["suites"]["held_out_combinations"]
    assert suite["leading"] == ATTRIBUTE_ERRORS
    assert suite["rates"]["base"][DIVERSITY] > 0
    TextToImage(quick).export(root / "base", trained.adapter, tmp_path / "out")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline("A teal star.", num_inference_steps=1, width=32, height=32, output_type="np").images
    assert np.isfinite(made).all()
