import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.cli.app import run_command
from tercet.errors import CorruptError, UsageError
from tercet.evaluate.run import evaluate_recipe
from tercet.evaluate.scales import find_scale, is_chosen_on
from tercet.pipeline.run import default_run_dir
from tercet.recipe import Adapter, load_recipe
from tercet.train import adapters
from tercet.train.run import train_recipe
from tercet.train.task import Example, Measured


@pytest.fixture(scope="module", autouse=True)
def learner():
    with installed():
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_run(folder)
    recipe = write_recipe(folder, f"{TRAIN}, learning_rate: 0.5")
    train_recipe(recipe, threads=1)
    return recipe


@pytest.fixture(autouse=True)
def enough_general_points(monkeypatch):
    """Give the learner a general set of which each half has sources enough."""
    from tercet_learner import WORDS, Naming, point  # type: ignore[import-not-found]

    suites = Naming.suites

    def twice_as_many(self, run_dir):
        everyday, *others = suites(self, run_dir)
        more = [Example(f"g{n}", f"g{n}", WORDS[n % 2], point(1000 + n, n % 2)) for n in range(12, 24)]
        return [dataclasses.replace(everyday, examples=[*everyday.examples, *more]), *others]

    monkeypatch.setattr(Naming, "suites", twice_as_many)


def test_the_largest_scale_within_the_margin_is_chosen_on_one_half_and_shown_on_the_other(recipe):
    found = find_scale(recipe, [0.0, 1.0, 0.5, 0.5], threads=1)
    assert [row["scale"] for row in found["scales"]] == [1.0, 0.5, 0.0]
    assert found["scales"][2]["primary"]["change"] == 0
    assert found["scales"][0]["primary"]["tuned"] < found["scales"][2]["primary"]["tuned"]
    allowed = [row["scale"] for row in found["scales"] if row["chosen_on"]["everyday"]["high"] <= 2.0]
    assert found["chosen"] == max(allowed)
    assert json.loads((default_run_dir(recipe) / "scales.json").read_text()) == found
    assert not (default_run_dir(recipe) / "evaluation.json").exists()


def test_an_adapter_that_forgets_at_every_scale_gets_none(recipe, monkeypatch, capfd):
    from tercet_learner import Naming

    answer = Naming.answer

    def forgetful(self, model, examples, on_units):
        is_tuned = not model.base_model.model.inner.disable_adapters
        for example, said in zip(examples, answer(self, model, examples, on_units), strict=True):
            yield "aspirin" if is_tuned and example.id.startswith("g") else said

    monkeypatch.setattr(Naming, "answer", forgetful)
    monkeypatch.setattr(Naming, "decoding", {"method": "forgetful"})
    found = find_scale(recipe, [1.0, 0.5], threads=1)
    assert found["scales"][0]["chosen_on"]["everyday"]["low"] == 100
    assert found["chosen"] == 0
    assert run_command(["eval", str(recipe.path), "--scale", "1,0.5", "--threads", "1"]) == 0
    said = capfd.readouterr().out
    assert ("no scale above 0 lies within the margin" in said, "train.lora_scale" in said) == (True, False)


@pytest.mark.parametrize("name", ["chosen on", "shown on"])
@pytest.mark.parametrize("left", [0, 4, 5])
def test_a_half_too_small_to_say_anything_is_named(recipe, monkeypatch, name, left):
    from tercet_learner import Naming

    measure = Naming.measure
    half = [n for n in range(24) if is_chosen_on(Example("", f"g{n}", "", None)) == (name == "chosen on")]
    without = {f"g{n}" for n in half[left:]}

    def without_units(self, example, said):
        return Measured({"wer": (0, 0)}) if example.source in without else measure(self, example, said)

    monkeypatch.setattr(Naming, "measure", without_units)
    if left == 5:
        assert find_scale(recipe, [1.0], threads=1)["scales"][0]["shown_on"].keys() == {"everyday"}
        return
    with pytest.raises(UsageError, match=f"set everyday: {left} sources with units of wer in the half .* {name}, "):
        find_scale(recipe, [1.0], threads=1)


@pytest.mark.parametrize(
    ("file", "key", "value", "error", "said"),
    [
        ("adapter_config.json", "use_dora", True, UsageError, "a DoRA adapter can't be scaled after training"),
        ("tercet.json", "scale", None, CorruptError, r"tercet\.json: no scale above 0 in it"),
        ("tercet.json", "scale", 0, CorruptError, r"tercet\.json: no scale above 0 in it"),
    ],
)
@pytest.mark.parametrize("scales", [[0.5], [1.0, 0.5]], ids=["one", "several"])
def test_an_adapter_that_has_no_other_scale_is_refused(recipe, tmp_path, file, key, value, error, said, scales):
    path = copy_run(recipe.root, tmp_path) / "runs/learn/adapters/learn" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    copied = load_recipe(tmp_path / "learn.yaml")
    with pytest.raises(error, match=said):
        find_scale(copied, scales, threads=1) if scales[1:] else evaluate_recipe(copied, scale=scales[0], threads=1)


def test_a_card_from_before_scales_is_named(recipe, tmp_path):
    path = copy_run(recipe.root, tmp_path) / "runs/learn/adapters/learn/tercet.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "scale"}))
    with pytest.raises(CorruptError, match=r"tercet\.json: no scale above 0 in it; restore it"):
        evaluate_recipe(load_recipe(tmp_path / "learn.yaml"), scale=0.5, threads=1)


def test_an_embeddings_adapter_is_scaled_as_a_layers(tmp_path):
    model = adapters.attach(
        torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 3)), Adapter(rank=2), "[01]"
    )
    card = {"base": "path:x", "base_digest": "d", "scale": 1.0}
    adapters.save(model, tmp_path / "as-trained", card)
    (tmp_path / "half").mkdir()
    adapters.rescale(tmp_path / "as-trained", tmp_path / "half", 0.5)
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("as-trained", "half"))
    assert len(before) == 4
    for name, value in before.items():
        torch.testing.assert_close(after[name], value * (0.5 if "_B" in name else 1.0))


@pytest.mark.parametrize("scale", [",", " , ,"])
def test_a_scale_that_names_none_is_refused(scale, tmp_path, capfd):
    (tmp_path / "bare.yaml").write_text("version: 1\nname: bare\n")
    assert run_command(["eval", str(tmp_path / "bare.yaml"), "--scale", scale]) == 2
    assert "names no scale; for example 1,0.75,0.5" in capfd.readouterr().err


def test_halves_are_of_sources_and_about_even():
    halves = [is_chosen_on(Example(str(n), f"sentence {n // 2}", "", None)) for n in range(400)]
    assert halves[::2] == halves[1::2]
    assert 150 < sum(halves) < 250


def test_a_task_without_a_general_set_cannot_say_what_was_forgotten(recipe, monkeypatch):
    from tercet_learner import Naming

    suites = Naming.suites
    monkeypatch.setattr(Naming, "suites", lambda self, run: [one for one in suites(self, run) if one.role != "general"])
    with pytest.raises(UsageError, match=r"no general set: .* name one in evaluate\.general"):
        find_scale(recipe, [1.0], threads=1)
