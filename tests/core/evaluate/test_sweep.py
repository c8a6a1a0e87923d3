import functools
import json
import shutil
from xml.etree import ElementTree

import pytest
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.errors import RecipeError
from tercet.evaluate import sweep
from tercet.evaluate.sweep import read_sweep, run_sweep
from tercet.pipeline.run import run_recipe
from tercet.train.run import train_recipe

FILE = """
set: {train.steps: 20}
variants:
  default: {seeds: [1, 2]}
  a quarter: {set: {train.data_fraction: 0.25}}
  fewer points: {set: {modalities.learner: {points: 44, distinct: 40}}}  # four are rejected
"""
LEARN = f"{TRAIN}, learning_rate: 0.5".replace("steps: 12", "steps: 99")


@pytest.fixture(scope="module", autouse=True)
def learner():
    with installed():
        yield


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A worker started anew would not find the learner."""
    monkeypatch.setattr(sweep, "run_recipe", functools.partial(run_recipe, workers=0))


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, LEARN)


@pytest.fixture
def variants(tmp_path):
    path = tmp_path / "ablations.yaml"
    path.write_text(FILE)
    return path


def test_every_variant_is_made_trained_and_judged_under_its_seeds(recipe, variants, tmp_path):
    out = tmp_path / "out"
    said: list[str] = []
    result = run_sweep(recipe, variants, out, command="tercet eval", announce=said.append)
    assert {name: list(seeds) for name, seeds in result["variants"].items()} == {
        "default": ["1", "2"], "a quarter": ["0"], "fewer points": ["0"],
    }  # fmt: skip
    assert said[0] == "1 of 4: default, seed 1"
    assert json.loads((out / "sweep.json").read_text()) == result
    card = json.loads((out / "a-quarter/seed-0/adapters/learn/tercet.json").read_text())
    assert (card["steps"], card["train"]["data_fraction"]) == (20, 0.25)
    assert len(list((out / "data").iterdir())) == 4  # a quarter of the data is trained on the same records as seed 0
    lines = (out / "sweep.md").read_text().splitlines()
    assert lines[0].startswith("`tercet eval` (")
    assert lines[4].startswith("| default | 2 | 100.0 → 0.0 (-100.0; -100.0 to -100.0)")
    assert lines[5].startswith("| a quarter | 1 | ")
    picture = ElementTree.fromstring((out / "sweep.svg").read_text())
    assert len(picture.findall(".//{*}circle")) == 8  # four cells, each with a primary and a general change


def test_a_sweep_that_was_stopped_goes_on_and_trains_nothing_twice(recipe, variants, tmp_path, monkeypatch):
    out = tmp_path / "out"
    trained: list[str] = []
    train = train_recipe

    def counted(recipe, folder, **more):
        if len(trained) == 2:
            raise KeyboardInterrupt
        result = train(recipe, folder, **more)
        trained.append(result.resumed)
        return result

    monkeypatch.setattr(sweep, "train_recipe", counted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(recipe, variants, out)
    assert list(json.loads((out / "sweep.json").read_text())["variants"]) == ["default"]
    trained.clear()
    monkeypatch.setattr(sweep, "train_recipe", lambda *a, **more: trained.append(train(*a, **more).resumed))
    result = run_sweep(recipe, variants, out)
    assert trained == ["already trained", "already trained", "", ""]
    assert len(result["variants"]) == 3


def test_the_base_answers_what_variants_share_once(recipe, variants, tmp_path):
    from tercet_learner import Naming  # type: ignore[import-not-found]

    Naming.asked.clear()
    out = tmp_path / "out"
    variants.write_text("variants:\n  one: {}\n  other: {set: {train.steps: 20}}")
    run_sweep(recipe, variants, out)
    (first, count), *others = Naming.asked
    assert (first, others) == ("base", [("tuned", count)] * 2)


def test_variants_share_the_bytes_of_their_records(recipe, variants, tmp_path):
    out = tmp_path / "out"
    run_sweep(recipe, variants, out)
    shards = {path.stat().st_ino for path in out.glob("data/*/shards/**/*.parquet")}
    assert {path.stat().st_ino for path in out.glob("*/seed-*/shards/**/*.parquet")} == shards


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", r"ablations\.yaml:1: a sweep file is a mapping with `variants`"),
        ("variants: {}", r"ablations\.yaml:1: variants: "),
        ("variants:\n  a: {seed: [1]}", r"ablations\.yaml:2: variants\.a\.seed: "),
        ("variants:\n  a: {set: {train.step: 3}}", r"ablations\.yaml:2: set: train\.step: "),
        ("variants:\n  a: {set: {train.steps: 0}}", r"ablations\.yaml:2: set: train\.steps: "),
        ("variants:\n  a: {set: {name.x: 0}}", r"ablations\.yaml:2: set: name\.x: name is no section"),
        ("variants:\n  a b: {}\n  A-b: {}", r"two names become the folder 'a-b'; rename one"),
    ],
)
def test_a_fault_of_the_file_is_named_by_its_line(recipe, tmp_path, text, named):
    path = tmp_path / "ablations.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=named):
        read_sweep(path, recipe)


def test_the_recipe_itself_is_left_as_it_was(recipe, variants):
    before = json.dumps(recipe.data)
    read_sweep(variants, recipe)
    assert json.dumps(recipe.data) == before


def test_records_that_changed_are_linked_again(tmp_path):
    make_run(tmp_path / "made")
    made, folder = tmp_path / "made/runs/learn", tmp_path / "cell"
    sweep.link_records(made, folder)
    sweep.link_records(made, folder)  # the same again: nothing to do
    shutil.rmtree(tmp_path / "made")
    recipe = write_recipe(tmp_path / "made")
    recipe.path.write_text(recipe.path.read_text().replace("points: 80", "points: 60"))
    from tercet.recipe import load_recipe

    run_recipe(load_recipe(recipe.path), workers=0)
    sweep.link_records(made, folder)
    assert sorted(path.name for path in folder.rglob("*.parquet")) == sorted(
        path.name for path in made.glob("shards/**/*.parquet")
    )
    copy_run(folder, tmp_path / "copy")
