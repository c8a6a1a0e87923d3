import errno
import functools
import json
import os
import shlex
import shutil
import signal
from xml.etree import ElementTree

import pytest
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.cli.app import run_command
from tercet.errors import RecipeError, StoreError
from tercet.evaluate import seeds, sweep
from tercet.evaluate.run import evaluate_recipe
from tercet.evaluate.seeds import run_seeds
from tercet.evaluate.sweep import read_sweep, run_sweep
from tercet.pipeline.run import Interrupted, StopOnInterrupt, run_recipe
from tercet.recipe import load_recipe
from tercet.train.run import train_recipe

FILE = """
set: {train.steps: 20}
variants:
  default: {seeds: [1, 2]}
  a quarter: {set: {train.data_fraction: 0.25}}
  fewer points: {set: {modalities.learner: {points: 44, distinct: 40}}}  # four are rejected
"""
STAGES = ("run_recipe", "train_recipe", "evaluate_recipe")
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


def test_a_repeated_sweep_leaves_the_complete_result_until_it_has_as_much_again(recipe, tmp_path, monkeypatch):
    out, path = tmp_path / "out", tmp_path / "seeds.yaml"
    path.write_text("set: {train.steps: 4}\nvariants: {one: {seeds: [1, 2]}}")
    run_sweep(recipe, path, out)
    complete = {name: (out / name).read_bytes() for name in sweep.RESULTS}
    judged: list[str] = []

    def evaluate(recipe, folder, **more):
        if judged:
            raise KeyboardInterrupt
        judged.append(folder.name)
        return evaluate_recipe(recipe, folder, **more)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "evaluate_recipe", evaluate)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(recipe, path, out)
    assert judged == ["seed-1"]
    assert {name: (out / name).read_bytes() for name in sweep.RESULTS} == complete
    path.write_text(path.read_text().replace("[1, 2]", "[2]"))  # what isn't asked for any more is not waited for
    assert list(run_sweep(recipe, path, out)["variants"]["one"]) == ["2"]
    assert list(json.loads((out / "sweep.json").read_text())["variants"]["one"]) == ["2"]


@pytest.mark.parametrize("change", ["learning_rate: 0.4", "data"])
def test_a_changed_recipe_is_refused_until_every_variant_is_made_anew(recipe, tmp_path, monkeypatch, change):
    out, path = tmp_path / "out", tmp_path / "two.yaml"
    path.write_text("set: {train.steps: 4}\nvariants: {one: {}, other: {set: {train.replay: 0.1}}}")
    run_sweep(recipe, path, out, threads=1)
    text = recipe.path.read_text()
    text = text.replace("points: 80", "points: 60") if change == "data" else text.replace("learning_rate: 0.5", change)
    recipe.path.write_text(text)
    changed = load_recipe(recipe.path)
    with pytest.raises(StoreError, match="--fresh"):
        run_sweep(changed, path, out)
    (out / "answers/mine.txt").write_text("not of the sweep")
    stopped = []

    def train(recipe, folder, **more):
        if more["threads"] == 2:
            stopped.append(folder)
            raise KeyboardInterrupt
        return train_recipe(recipe, folder, **more)

    monkeypatch.setattr(sweep, "train_recipe", train)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(changed, path, out, fresh=True, threads=2)
    assert not (out / "sweep.json").exists()
    result = run_sweep(changed, path, out, threads=1)  # goes on, and meets nothing of before
    assert (len(stopped), set(result["variants"])) == (1, {"one", "other"})
    assert (out / "answers/mine.txt").exists()


@pytest.mark.parametrize("stage", ["run_recipe", "train_recipe", "evaluate_recipe"])
@pytest.mark.parametrize("driver", ["sweep", "seeds"])
def test_an_interrupt_during_a_stage_without_work_stops_before_the_next(recipe, tmp_path, monkeypatch, driver, stage):
    """A stage that finds all its work done asks nobody whether a signal came."""
    called: list[str] = []

    def pretend(name):
        def work(recipe, folder, **more):
            called.append(name)
            with StopOnInterrupt():
                if name == stage:
                    os.kill(os.getpid(), signal.SIGINT)
            return {"base": {}, "adapter": {}, "decision": {}, "margin": 1, "confidence": 0.95, "suites": {}}

        return work

    for module in (sweep, seeds):
        for name in STAGES:
            monkeypatch.setattr(module, name, pretend(name))
    monkeypatch.setattr(sweep, "link_records", lambda made, folder: None)
    path = tmp_path / "seeds.yaml"
    path.write_text("variants: {one: {seeds: [0, 1]}}")
    with pytest.raises(Interrupted, match="the same command goes on from here"):
        run_sweep(recipe, path, tmp_path / "out") if driver == "sweep" else run_seeds(recipe, 2, tmp_path / "out")
    assert called == list(STAGES[: STAGES.index(stage) + 1])


def test_the_command_is_spelled_as_it_was_given(recipe, variants, tmp_path, monkeypatch):
    def fake(recipe, path, out, **more):
        asked.update(more, out=out)
        raise Interrupted("enough")

    asked: dict[str, object] = {}
    monkeypatch.setattr(sweep, "run_sweep", fake)
    general = tmp_path / "a folder"
    more = ["--general", str(general), "--out", str(tmp_path / "o"), "--threads", "1"]
    assert run_command(["eval", str(recipe.path), "--sweep", str(variants), *more, "--fresh"]) == 130
    assert (asked["out"], asked["threads"], asked["fresh"]) == (tmp_path / "o", 1, True)
    assert shlex.split(str(asked["command"])) == ["tercet", "eval", str(recipe.path), "--sweep", str(variants), *more]


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
        ("variants:\n  a: {seed: [1]}", r"ablations\.yaml:2: variants\.a\.seed: unknown key; did you mean 'seeds'\?"),
        (
            "variants:\n  a: {set: {train.step: 3}}",
            r"ablations\.yaml:2: set: train\.step: unknown key; did you mean 'steps'\?",
        ),
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


def test_records_are_copied_where_links_are_impossible_and_a_full_disk_is_named(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    make_run(tmp_path / "made")
    made = tmp_path / "made/runs/learn"
    monkeypatch.setattr(os, "link", refuse)
    sweep.link_records(made, tmp_path / "cell")
    assert len(list((tmp_path / "cell").rglob("*.parquet"))) == len(list(made.glob("shards/**/*.parquet"))) > 0
    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(StoreError, match=r"other: can't be written: .*Operation not permitted.*; free space or fix"):
        sweep.link_records(made, tmp_path / "other")


def test_records_that_changed_are_linked_again(tmp_path):
    make_run(tmp_path / "made")
    made, folder = tmp_path / "made/runs/learn", tmp_path / "cell"
    sweep.link_records(made, folder)
    sweep.link_records(made, folder)  # the same again: nothing to do
    shutil.rmtree(tmp_path / "made")
    recipe = write_recipe(tmp_path / "made")
    recipe.path.write_text(recipe.path.read_text().replace("points: 80", "points: 60"))
    run_recipe(load_recipe(recipe.path), workers=0)
    sweep.link_records(made, folder)
    assert sorted(path.name for path in folder.rglob("*.parquet")) == sorted(
        path.name for path in made.glob("shards/**/*.parquet")
    )
    copy_run(folder, tmp_path / "copy")
