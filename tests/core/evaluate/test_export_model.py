"""The tuned model as its users load it: merged, whole, and never half of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.core.learner.world import TRAIN, copy_run, installed, make_run, write_recipe

from tercet.cli import app
from tercet.errors import ModelError, UsageError
from tercet.export import export
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


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_model_of_the_users_own_is_left_alone(recipe, tmp_path, is_claimed):
    own = tmp_path / "work/model"
    if is_claimed:  # records were exported beside it
        export(default_run_dir(recipe), own.parent, ["jsonl"])
    own.mkdir(parents=True)
    (own / "config.json").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty, and no former export of .*learn; empty it or export to another"):
        export_model(recipe, own.parent)
    assert [path.read_text() for path in own.iterdir()] == ["mine"]


def test_another_runs_model_is_left_alone(recipe, tmp_path):
    folder = export_model(recipe, tmp_path / "out")
    other = recipe.root / "other"
    shutil.copytree(default_run_dir(recipe), other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"recipe": "r" * 32}))
    with pytest.raises(UsageError, match="holds an export of another run"):
        export_model(recipe, tmp_path / "out", other)
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("order", [["model", "jsonl"], ["jsonl", "model"]], ids=" first, then ".join)
def test_records_and_model_are_exported_beside_each_other_in_either_order(recipe, order, capfd):
    for to in [*order, *order]:
        assert app.run_command(["export", str(recipe.path), "--to", to]) == 0, capfd.readouterr().err
    found = sorted(path.name for path in (default_run_dir(recipe) / "export").iterdir())
    assert found == ["jsonl", "model", "tercet-export.json"]


def test_the_command_takes_the_recipe_and_says_so(recipe, capfd):
    assert app.run_command(["export", str(recipe.path), "--to", "jsonl,model", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["model"].endswith("export/model")
    assert printed["files"]
    assert app.run_command(["export", str(default_run_dir(recipe)), "--to", "model"]) == 2
    assert "--to model needs the recipe" in capfd.readouterr().err


def test_the_model_of_a_run_elsewhere_is_exported_from_there(recipe, tmp_path, capfd):
    elsewhere = default_run_dir(recipe).rename(tmp_path / "elsewhere")
    arguments = ["export", str(recipe.path), "--to", "model", "--run", str(elsewhere)]
    assert app.run_command(arguments) == 0, capfd.readouterr().err
    assert (elsewhere / "export/model/model.safetensors").is_file()
    assert app.run_command(["export", str(elsewhere), "--run", str(elsewhere)]) == 2
    assert "--run names the run of a recipe" in capfd.readouterr().err


def test_a_recipe_says_what_is_exported_without_a_word(recipe, capfd):
    recipe.path.write_text(f"{recipe.path.read_text()}export: {{formats: [jsonl, webdataset]}}\n")
    for run, formats in ((recipe.path, ["jsonl", "webdataset"]), (default_run_dir(recipe), ["parquet"])):
        out = recipe.root / f"from-{run.name}"
        assert app.run_command(["export", str(run), "--out", str(out)]) == 0, capfd.readouterr().err
        assert sorted(path.name for path in out.iterdir() if path.is_dir()) == formats


def test_without_an_adapter_there_is_no_model(recipe):
    (default_run_dir(recipe) / "adapters/learn" / adapters.CARD).unlink()
    with pytest.raises(ModelError, match="train one with: tercet train"):
        export_model(recipe)
