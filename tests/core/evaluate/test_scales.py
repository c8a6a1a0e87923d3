import json

import pytest
from tests.core.learner.world import TRAIN, installed, make_run, write_recipe

from tercet.errors import UsageError
from tercet.evaluate.scales import find_scale, is_chosen_on
from tercet.pipeline.run import default_run_dir
from tercet.train.run import train_recipe
from tercet.train.task import Example


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


def test_the_largest_scale_within_the_margin_is_chosen_on_one_half_and_shown_on_the_other(recipe):
    found = find_scale(recipe, [0.0, 1.0, 0.5, 0.5], threads=1)
    assert [row["scale"] for row in found["scales"]] == [1.0, 0.5, 0.0]
    assert found["scales"][2]["primary"]["change"] == 0
    assert found["scales"][0]["primary"]["tuned"] < found["scales"][2]["primary"]["tuned"]
    allowed = [row["scale"] for row in found["scales"] if row["chosen_on"]["everyday"]["high"] <= 2.0]
    assert found["chosen"] == max(allowed)
    assert json.loads((default_run_dir(recipe) / "scales.json").read_text()) == found
    assert not (default_run_dir(recipe) / "evaluation.json").exists()


def test_an_adapter_that_forgets_at_every_scale_gets_none(recipe, monkeypatch):
    from tercet_learner import Naming  # type: ignore[import-not-found]

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
