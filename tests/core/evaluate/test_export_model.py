"""The tuned model as its users load it: merged, whole, and never half of it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.cli import app
from tercet.errors import ModelError, StoreError
from tercet.export.model import export_model
from tercet.pipeline.run import default_run_dir
from tercet.recipe import load_recipe
from tercet.train import adapters
from tercet.train.loading import load
from tercet.train.run import train_recipe
from tercet.train.task import find_task


@pytest.fixture(scope="module", autouse=True)
def learner():
    with installed():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_run(folder)
    train_recipe(write_recipe(folder, TRAIN), threads=1)
    return folder


@pytest.fixture
def recipe(trained, tmp_path):
    return load_recipe(copy_run(trained, tmp_path) / "learn.yaml")


def test_the_merged_model_computes_what_base_and_adapter_do(recipe, tmp_path):
    folder = export_model(recipe, tmp_path / "out")
    assert folder == tmp_path / "out/model"
    tuned = load(find_task(recipe).load_base(recipe.root / "base"), default_run_dir(recipe) / "adapters/learn")
    x = torch.eye(4)
    torch.testing.assert_close(x @ load_file(folder / "model.safetensors")["inner.weight"].T, tuned(x))
    assert "adapter's weights" in (folder / "README.md").read_text()


def test_a_second_export_replaces_the_first_and_nothing_else(recipe, tmp_path):
    first = export_model(recipe)
    (first / "leftover").write_text("of the first")
    assert not (export_model(recipe) / "leftover").exists()
    strange = tmp_path / "photos/model"
    strange.mkdir(parents=True)
    (strange / "holiday.png").write_bytes(b"mine")
    with pytest.raises(StoreError, match="holds something else than a model"):
        export_model(recipe, tmp_path / "photos")
    assert (strange / "holiday.png").read_bytes() == b"mine"


def test_the_command_takes_the_recipe_and_says_so(recipe, capfd):
    assert app.run_command(["export", str(recipe.path), "--to", "jsonl,model", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["model"].endswith("export/model")
    assert printed["files"]
    assert app.run_command(["export", str(default_run_dir(recipe)), "--to", "model"]) == 2
    assert "--to model needs the recipe" in capfd.readouterr().err


def test_without_an_adapter_there_is_no_model(recipe):
    (default_run_dir(recipe) / "adapters/learn" / adapters.CARD).unlink()
    with pytest.raises(ModelError, match="train one with: tercet train"):
        export_model(recipe)
