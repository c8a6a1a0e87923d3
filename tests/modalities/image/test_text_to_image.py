"""The task `text-to-image` on pipelines of random weights: real code, meaningless pixels."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tercet.errors import CorruptError, ModelError, NothingSurvived, SourceError, UsageError
from tercet.evaluate.run import evaluate_recipe
from tercet.models import ResolvedModel
from tercet.pipeline.run import run_recipe
from tercet.recipe import Adapter, load_recipe
from tercet.store.shards import read_records
from tercet.train.adapters import attach, save, trainable
from tercet.train.loading import load
from tercet.train.run import train_recipe
from tercet.train.task import ChecksBase, WritesLayout
from tercet_image import t2i_suites
from tercet_image.plan import HELD_OUT, Scenes
from tercet_image.t2i_data import prepare
from tercet_image.t2i_judging import ATTRIBUTE_ERRORS, DIVERSITY, read_pictures
from tercet_image.t2i_layout import LAYOUT
from tercet_image.t2i_parts import parts_of
from tercet_image.t2i_suites import caption_example
from tercet_image.text_to_image import TextToImage

RECIPE = """
version: 1
name: brand
seed: 3
modalities:
  image:
    pictures: 40
    size: 64
    test_fraction: 0.2
    captions: [short]
    scene:
      shapes: [circle, square, star]
      colours: {teal: '#008080', mustard: '#c9a227', red: '#e5383b'}
      objects: [1, 2]
      label_share: 0
    training: {steps: 2, caption_dropout: 0}
train:
  task: text-to-image
  base: path:./base
  steps: 3
  micro_batch: 4
  adapter: {rank: 2, dropout: 0}
"""
DENOISER_ALONE = r"unet\..*(to_q|to_k|to_v|to_out\.0)"
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


def quietly(*_: Any) -> None:
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_pipeline):
    """A recipe's folder with its base and its finished run."""
    folder = tmp_path_factory.mktemp("brand")
    shutil.copytree(tiny_pipeline, folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE)
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.fixture
def recipe(root):
    return load_recipe(root / "recipe.yaml")


@pytest.fixture
def run_dir(root):
    return root / "runs" / "brand"


@pytest.fixture
def task(recipe):
    return TextToImage(recipe)


@pytest.fixture
def model(task, root):
    return task.load_base(root / "base")


def adapted(task: TextToImage, root: Path, targets: str | None = None, kernels: str = "peft") -> Any:
    """A base with an adapter that does something."""
    import torch

    wrapped = attach(
        task.load_base(root / "base"), Adapter(rank=2, dropout=0), targets or task.defaults.targets, kernels
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in trainable(wrapped).values():
            value.normal_(std=0.3, generator=generator)
    return wrapped


def with_scheduler(model: Any, **config: Any) -> None:
    pipeline = parts_of(model).pipeline
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **config)


def test_the_sampler_that_paints_changes_nothing_of_the_training(task, model, run_dir):
    import torch
    from diffusers import EulerDiscreteScheduler

    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1], [])
    parts = parts_of(model)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(float(task.loss(model, batch)))
        parts.pipeline.scheduler = EulerDiscreteScheduler.from_config(parts.pipeline.scheduler.config)
        vars(parts).pop("noising")
    assert losses[0] == losses[1]


def test_the_adapter_sits_where_diffusers_looks_for_it(task, root):
    names = list(trainable(adapted(task, root)))
    assert {name.removeprefix("base_model.model.").partition(".")[0] for name in names} == {"unet", "text_encoder"}
    assert not [name for name in names if "vae" in name]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_each_prediction_as_an_error_in_the_picture(task, model, run_dir, kind, monkeypatch):
    import torch

    with_scheduler(model, prediction_type=kind)
    parts = parts_of(model)
    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1, 2], [])
    seen: dict[str, Any] = {}

    def predict(noisy: Any, times: Any, told: Any) -> Any:
        seen.update(noisy=noisy, times=times)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(parts, "predict", predict)
    torch.manual_seed(5)
    loss = float(task.loss(model, batch))
    signal = parts.pipeline.scheduler.alphas_cumprod[seen["times"]].double().view(-1, 1, 1, 1)
    x = batch["latents"].double()
    noise = (seen["noisy"].double() - signal.sqrt() * x) / (1 - signal).sqrt()
    # what a prediction of zero says of the picture itself
    said = {
        "epsilon": seen["noisy"].double() / signal.sqrt(),
        "v_prediction": signal.sqrt() * seen["noisy"].double(),
        "sample": torch.zeros_like(x),
    }[kind]
    weight = (signal / (1 - signal)).clamp(max=5.0)
    assert loss == pytest.approx(float((weight * (said - x) ** 2).mean()), rel=1e-3)
    assert noise.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_schedule_that_ends_in_noise_alone_gives_a_finite_loss(task, model, run_dir, kind, monkeypatch):
    import torch

    with_scheduler(model, prediction_type=kind, rescale_betas_zero_snr=True)
    data = task.prepare(model, run_dir, 3, quietly)
    monkeypatch.setattr(torch, "rand", lambda *size: torch.full(size, 1 - 1e-7))  # the very last time
    assert parts_of(model).noising.alphas_cumprod[-1] == 0
    assert torch.isfinite(task.loss(model, data.collate([0, 1], [])))


def test_without_min_snr_every_time_weighs_the_same(recipe, root, run_dir, monkeypatch):
    import torch

    image = recipe.data["modalities"]["image"]
    task = TextToImage(recipe.replaced(modalities={"image": {**image, "training": {"min_snr_gamma": None}}}))
    model = task.load_base(root / "base")
    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1, 2], [])
    noise: list[torch.Tensor] = []
    draw = torch.randn

    def kept(*size: Any, **more: Any) -> Any:
        noise.append(draw(*size, **more))
        return noise[-1]

    monkeypatch.setattr(torch, "randn", kept)
    monkeypatch.setattr(parts_of(model), "predict", lambda noisy, times, told: torch.zeros_like(noisy))
    assert float(task.loss(model, batch)) == pytest.approx(float(noise[0].square().mean()), rel=1e-5)


def test_times_are_spread_over_the_whole_schedule_whatever_the_place_in_the_batch(task, model, run_dir, monkeypatch):
    import torch

    parts = parts_of(model)
    batch = task.prepare(model, run_dir, 3, quietly).collate(list(range(8)), [])
    drawn: list[torch.Tensor] = []

    def predict(noisy: Any, times: Any, told: Any) -> Any:
        drawn.append(times)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(parts, "predict", predict)
    for seed in range(40):
        torch.manual_seed(seed)
        task.loss(model, batch)
    times = torch.stack(drawn).float()
    assert (times.sort(1).values.diff(dim=1) < 260).all() and times.min() < 20 and times.max() > 980
    assert (times.mean(0) - 500).abs().max() < 150  # no place always takes the noisiest


def test_a_step_depends_on_the_seed_alone(task, model, run_dir):
    import torch

    data = task.prepare(model, run_dir, 3, quietly)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(task.loss(model, data.collate([0, 1], [0]))))
    assert losses[0] == losses[1] != losses[2]


def test_captions_are_encoded_once_where_no_text_encoder_is_trained(task, root, run_dir):
    import torch

    model = adapted(task, root, DENOISER_ALONE)
    data = task.prepare(model, run_dir, 3, quietly)
    assert data.describe()["captions_cached"]
    batch = data.collate([0, 1], [0])
    losses = []
    for one in (batch, {**batch, "untold": None}):  # kept, and encoded anew
        torch.manual_seed(0)
        losses.append(task.loss(model, one).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_trained_text_encoder_reads_each_step(task, root, run_dir):
    model = adapted(task, root)
    data = task.prepare(model, run_dir, 3, quietly)
    assert not data.describe()["captions_cached"]
    task.loss(model, data.collate([0, 1], [])).backward()
    assert all(value.grad is not None for value in trainable(model).values())


def test_the_loss_hears_the_caption(task, model, run_dir):
    import torch

    data = task.prepare(model, run_dir, 3, quietly)
    batch = data.collate([0, 1, 2, 3], [])
    torch.manual_seed(0)
    loss = float(task.loss(model, batch))
    batch["told"] = batch["told"][::-1]
    torch.manual_seed(0)
    assert float(task.loss(model, batch)) != loss


def test_all_captions_dropped_is_the_loss_without_any(recipe, root, run_dir):
    import torch

    image = recipe.data["modalities"]["image"]
    never = {**image, "training": {"caption_dropout": 0.999999}}
    task = TextToImage(recipe.replaced(modalities={"image": never}))
    model = task.load_base(root / "base")
    data = task.prepare(model, run_dir, 3, quietly)
    batch = data.collate([0, 1], [])
    untold = {**batch, "told": [data.untold] * 2}
    losses = []
    for one in (batch, untold):
        torch.manual_seed(0)
        losses.append(float(task.loss(model, one)))
    assert losses[0] == losses[1]


def test_fused_layers_give_the_loss_of_peft(task, root, run_dir):
    import torch

    found = []
    for kernels in ("peft", "fused"):
        model = adapted(task, root, kernels=kernels)
        batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1], [0])
        torch.manual_seed(0)
        loss = task.loss(model, batch)
        loss.backward()
        found.append(
            [loss.item(), *(value.grad.norm().item() for value in trainable(model).values() if value.grad is not None)]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-3)


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
