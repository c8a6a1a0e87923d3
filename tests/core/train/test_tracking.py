"""trackio is told each row of the log. A stand-in with its signature here: trackio 0.43 refuses the pillow we pin."""

import sys
from types import SimpleNamespace

import pytest
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.errors import MissingExtra
from tercet.train.log import read_log
from tercet.train.run import train_recipe


@pytest.fixture
def recipe(tmp_path):
    with installed():
        make_run(tmp_path / "made")
        yield write_recipe(copy_run(tmp_path / "made", tmp_path / "copy"), f"{TRAIN}, tracker: trackio")


def told(monkeypatch):
    seen: list[tuple[object, ...]] = []

    def init(project, name=None, config=None, resume="never", *, embed=True):
        print("* View dashboard")  # noqa: T201 - as trackio does
        seen.append(("init", project, name, config["train"]["steps"], resume, embed))

    def log(metrics, step=None):
        seen.append(("log", step, metrics["loss"]))

    stand_in = SimpleNamespace(init=init, log=log, finish=lambda: seen.append(("finish",)))
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    return seen


def test_every_step_is_told_once_within_one_run(recipe, monkeypatch, capsys):
    seen = told(monkeypatch)
    result = train_recipe(recipe, threads=1)
    assert capsys.readouterr().out == ""
    first, *logged, last = seen
    assert first[:2] == ("init", "tercet")
    assert first[3:] == (12, "allow", False)
    rows = read_log(result.adapter.parents[1] / "training")
    assert logged == [("log", row["step"], row["loss"]) for row in rows]
    assert last == ("finish",)


def test_a_tracker_that_is_not_installed_is_named(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtra, match=r"train\.tracker: trackio isn't installed; run: pip install trackio"):
        train_recipe(recipe, threads=1)
