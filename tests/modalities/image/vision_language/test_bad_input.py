"""Records, bases, processors and recipes that `vision-language` can't train on are refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from PIL import Image
from tests.modalities.image.conftest import quietly

from tercet.errors import CorruptError, ModelError, NothingSurvived, UsageError
from tercet.models import ResolvedModel
from tercet.recipe import load_recipe
from tercet.store.shards import read_records
from tercet.train.task import ChecksBase
from tercet_image import vl_suites
from tercet_image.vision_language import VisionLanguage
from tercet_image.vl_data import prepare
from tercet_image.vl_reader import Reader


def test_a_picture_without_pixel_values_is_refused(data):
    class Blind:
        def __init__(self, real: Any) -> None:
            self.real, self.tokenizer = real, real.tokenizer

        def __call__(self, **given: Any) -> Any:
            return {name: value for name, value in self.real(**given).items() if name != "pixel_values"}

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    data.reader.processor = Blind(data.reader.processor)
    with pytest.raises(ModelError, match="base: its processor gives no pixel_values"):
        data.collate([0, 1], [])


def test_image_tokens_must_be_as_many_as_the_models_features(task, model, root):
    reader = Reader(model, root / "base")
    reader.processor.patch_size = 8  # as if it were another model's processor
    with pytest.raises(ModelError, match="gives a picture 64 image tokens, and the model has 16 features"):
        reader.size(Image.new("RGB", (64, 64)), "What?")


def test_a_record_without_a_picture_is_named(data, recipe, run_dir):
    records = list(read_records(run_dir, "image", "train"))
    first = records[0]
    for broken, said in ((b"", "holds no picture"), (b"\x89PNG\r\n nothing", "can't be decoded")):
        spoilt = dataclasses.replace(first, payload={**first.payload, "image": broken})
        with pytest.raises(CorruptError, match=f"record {first.id}: .*{said}"):
            prepare(data.reader, [spoilt], [], recipe.sections.train, 3, quietly, describe=False)


def test_without_records_nothing_is_trained(data, recipe):
    with pytest.raises(NothingSurvived, match="no accepted picture to train on"):
        prepare(data.reader, [], [], recipe.sections.train, 3, quietly, describe=False)


def test_a_question_over_the_context_is_left_out_and_counted(data, recipe, run_dir):
    first, second = list(read_records(run_dir, "image", "train"))[:2]
    asked = [{"question": "Why? " * 40, "answer": "no", "attribute": ""}]
    long = dataclasses.replace(first, payload={**first.payload, "questions": asked})
    found = prepare(data.reader, [long, second], [], recipe.sections.train, 3, quietly, describe=False)
    assert (found.left_out, {one.record for one in found.own}) == (1, {second.id})
    with pytest.raises(NothingSurvived, match="none of 1 questions fits the base's context of 160 tokens"):
        prepare(data.reader, [long], [], recipe.sections.train, 3, quietly, describe=False)


def string_alone(processor: Any) -> None:
    processor.chat_template = "{% for one in messages %}{{ one['content'] + '.' }}{% endfor %}"


def no_image(processor: Any) -> None:
    processor.chat_template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda processor: setattr(processor.tokenizer, "pad_token", None), "base: no pad token; write pad_token into"),
        (lambda processor: setattr(processor.tokenizer, "eos_token", None), "base: no end token; write eos_token into"),
        (string_alone, "base: no processor with a chat template: "),
        (no_image, "base: it can't be asked about a picture: .* 0 <image> tokens"),
    ],
    ids=["pad", "end", "string", "no image"],
)
def test_an_odd_processor_is_refused_with_its_base(task, root, monkeypatch, spoil, said):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(root / "base")
    spoil(processor)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda _: processor)
    with pytest.raises(ModelError, match=said):
        task.load_base(root / "base")


def test_a_configuration_without_an_image_token_is_refused(root):
    class Spoilt:
        config = type("Config", (), {"image_token_id": None})()

    with pytest.raises(ModelError, match="base: no image token; write image_token_id into config.json"):
        Reader(Spoilt(), root / "base")


def test_what_no_question_could_judge_is_not_trained(recipe, run_dir, root, tmp_path, monkeypatch):
    def check(place, **more):
        image = {**recipe.data["modalities"]["image"], **more}
        task: Any = VisionLanguage(recipe.replaced(modalities={"image": image}))
        assert isinstance(task, ChecksBase)
        task.check_base(ResolvedModel("path:base", root / "base", "", "", "free", ""), place)

    check(run_dir)
    with pytest.raises(UsageError, match=r"modalities\.image\.test_fraction: 0 gives no held-out picture to judge by"):
        check(tmp_path, test_fraction=0)
    with pytest.raises(UsageError, match=r"modalities\.image\.pictures: 40 gives no held-out picture to judge by"):
        check(tmp_path)
    first = next(iter(read_records(run_dir, "image", "train")))
    unasked = dataclasses.replace(first, payload={**first.payload, "questions": []})
    monkeypatch.setattr(vl_suites, "held_out_records", lambda *_: [unasked])
    with pytest.raises(
        UsageError, match=r"image\.questions_per_picture: 0 leaves no question about a held-out picture"
    ):
        check(run_dir, questions_per_picture=0)
    with pytest.raises(UsageError, match=r"image\.diffusion\.keep_questions: false leaves no question"):
        check(run_dir)


def test_another_kind_of_model_is_refused(task, tmp_path, tiny_pipeline):
    with pytest.raises(ModelError, match="can't be loaded as a model of pictures and text"):
        task.load_base(tiny_pipeline / "text_encoder")


def test_a_recipe_without_pictures_cannot_train_on_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: x\ntrain: {task: vision-language}\n")
    with pytest.raises(UsageError, match="fill modalities.image"):
        VisionLanguage(load_recipe(tmp_path / "recipe.yaml"))
