"""Records, captions, bases and recipes that `text-to-image` can't train on are refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.modalities.image.conftest import quietly
from tests.modalities.image.text_to_image.conftest import with_scheduler

from tercet.errors import CorruptError, ModelError, NothingSurvived, SourceError, UsageError
from tercet.models import ResolvedModel
from tercet.recipe import load_recipe
from tercet.store.shards import read_records
from tercet.train.task import ChecksBase
from tercet_image.t2i_data import prepare
from tercet_image.t2i_parts import parts_of
from tercet_image.text_to_image import TextToImage


def test_a_record_without_a_picture_is_named(recipe, model, run_dir):
    first = next(iter(read_records(run_dir, "image", "train")))
    spoilt = dataclasses.replace(first, payload={**first.payload, "image": b""})
    with pytest.raises(CorruptError, match=f"record {first.id}: it holds no picture, so there are no pixel values"):
        prepare(parts_of(model), [spoilt], [], recipe.sections.train, 3, quietly)


def test_without_records_nothing_is_trained(recipe, model):
    with pytest.raises(NothingSurvived, match="no accepted picture to train on"):
        prepare(parts_of(model), [], [], recipe.sections.train, 3, quietly)


def test_a_caption_over_the_context_is_left_out_and_counted(recipe, model, run_dir):
    first, second = list(read_records(run_dir, "image", "train"))[:2]
    long = dataclasses.replace(first, payload={**first.payload, "caption": "star " * 100})
    data = prepare(parts_of(model), [long, second], [], recipe.sections.train, 3, quietly)
    assert data.describe()["over_context"] == 1
    assert [row.records for row in data.rows] == [(second.id,)]
    with pytest.raises(NothingSurvived, match="none of 1 captions fits the base's tokenizer"):
        prepare(parts_of(model), [long], [], recipe.sections.train, 3, quietly)


def test_what_no_caption_could_judge_is_not_trained(recipe, run_dir, root, tmp_path):
    image = {**recipe.data["modalities"]["image"], "test_fraction": 0}
    base = ResolvedModel("path:base", root / "base", "", "", "free", "")
    assert isinstance(TextToImage(recipe), ChecksBase)
    TextToImage(recipe).check_base(base, run_dir)
    with pytest.raises(UsageError, match=r"modalities\.image\.test_fraction: 0 gives no held-out picture to judge by"):
        TextToImage(recipe.replaced(modalities={"image": image})).check_base(base, tmp_path)


def test_a_folder_without_a_pipeline_is_refused(task, tmp_path):
    with pytest.raises(ModelError, match="can't be loaded as a diffusers pipeline"):
        task.load_base(tmp_path)


def test_a_pipeline_of_another_kind_is_refused(task, root, tmp_path):
    from diffusers import DDPMPipeline

    pipeline = parts_of(task.load_base(root / "base")).pipeline
    other: Any = DDPMPipeline(pipeline.unet, pipeline.scheduler)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="can't train a DDPMPipeline; name a base that is one of these: StableDiff"):
        task.load_base(tmp_path / "other")


def test_an_unknown_prediction_is_refused(task, model, run_dir):
    data = task.prepare(model, run_dir, 3, quietly)
    with_scheduler(model, prediction_type="something")
    with pytest.raises(ModelError, match="prediction_type 'something'"):
        task.loss(model, data.collate([0], []))


def test_a_general_set_of_unknown_scenes_is_refused(recipe):
    with pytest.raises(UsageError, match="evaluate.general: text-to-image is judged on scenes"):
        TextToImage(recipe.replaced(evaluate={"general": "elsewhere"}))


def test_an_empty_caption_is_no_input(task):
    with pytest.raises(SourceError, match="an empty caption"):
        task.read_input(" ")


def test_a_recipe_without_pictures_cannot_train_on_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: x\ntrain: {task: text-to-image}\n")
    with pytest.raises(UsageError, match="fill modalities.image"):
        TextToImage(load_recipe(tmp_path / "recipe.yaml"))
