import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tests.core.learner.world import TRAIN, copy_run, in_a_child, installed, make_run, write_recipe

import tercet
from tercet.errors import CorruptError, LockedError, ModelError, StoreError, TermsError, UsageError
from tercet.pipeline.run import Interrupted, default_run_dir, run_recipe
from tercet.recipe import load_recipe
from tercet.store.lock import RunLock
from tercet.train import adapters, checkpoints, loop, run
from tercet.train.loop import TrainingFailed
from tercet.train.run import train_recipe


@pytest.fixture(scope="module", autouse=True)
def learner():
    with installed():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_run(folder)
    return folder


@pytest.fixture
def recipe(made, tmp_path):
    return load_recipe(copy_run(made, tmp_path) / "learn.yaml")


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory):
    folder = copy_run(made, tmp_path_factory.mktemp("undisturbed"))
    return train_recipe(load_recipe(folder / "learn.yaml"), threads=1)


def patched(monkeypatch, **values):
    from tercet_learner import Naming  # type: ignore[import-not-found]

    for name, value in values.items():
        monkeypatch.setattr(Naming, name, value)


def test_a_trained_adapter_says_what_it_came_from_and_loads(undisturbed):
    card = adapters.read_card(undisturbed.adapter)
    assert card["base"] == "path:./base"
    assert (card["base_licence"], card["seed"], card["steps"], card["scale"]) == ("mit", 0, 12, 1.0)
    assert card["train"]["learning_rate"] == 0.1  # the task's default, written out
    assert card["weights"] == undisturbed.digest
    rows = [
        json.loads(line) for line in (undisturbed.adapter.parents[1] / "training/log.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("step", [0, 5, 8, 11])
def test_a_training_killed_in_a_step_resumes_to_the_same_bytes(recipe, undisturbed, monkeypatch, step):
    with monkeypatch.context() as patch:
        patched(patch, kill_at=step)
        assert in_a_child(lambda: train_recipe(recipe, threads=1)) == -signal.SIGKILL
    found: list[str] = []
    result = train_recipe(recipe, threads=1, announce=found.append)
    assert result.digest == undisturbed.digest
    assert found[:-1] == ([f"resuming: step {step // 4 * 4} of 12"] if step >= 4 else [])
    assert found[-1] == "training data: points 60"
    log = (default_run_dir(recipe) / "training/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 13))


@pytest.mark.parametrize("nth", range(1, 14))
def test_a_training_killed_in_any_of_its_writes_resumes_to_the_same_bytes(recipe, undisturbed, monkeypatch, nth):
    calls = iter(range(1, 100))
    replace = os.replace

    def dying(source, target):
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        status = in_a_child(lambda: train_recipe(recipe, threads=1))
    writes = 12  # pin, data, three checkpoints with their curves, the adapter's weights, configuration and both cards
    assert status == (-signal.SIGKILL if nth <= writes else 0)
    result = train_recipe(recipe, threads=1)
    assert result.digest == undisturbed.digest
    assert not [path for path in result.adapter.parents[1].rglob(".*.tmp") if "adapters" in path.parts]
    assert adapters.read_card(result.adapter) == adapters.read_card(undisturbed.adapter)
    assert (result.adapter / "README.md").is_file()


def test_a_finished_training_returns_at_once_and_another_scale_needs_no_steps(recipe, made, monkeypatch):
    first = train_recipe(recipe, threads=1)
    assert train_recipe(recipe).resumed == "already trained"
    patched(monkeypatch, nan_at=0)  # any step would fail
    scaled = write_recipe(recipe.root, f"{TRAIN}, lora_scale: 0.5")
    second = train_recipe(scaled, threads=1)
    assert (second.resumed, second.digest != first.digest) == ("resuming: step 12 of 12", True)
    assert adapters.read_card(second.adapter)["scale"] == 0.5
    assert train_recipe(scaled).resumed == "already trained"


def test_a_damaged_adapter_is_written_again_from_the_checkpoint(recipe):
    first = train_recipe(recipe, threads=1)
    (first.adapter / adapters.WEIGHTS).write_bytes(b"rot")
    assert train_recipe(recipe, threads=1).digest == first.digest
    adapters.check(first.adapter, adapters.read_card(first.adapter)["base_digest"])


@pytest.mark.parametrize(
    ("train", "named"),
    [
        (TRAIN.replace("steps: 12", "steps: 13"), "train.steps: 12 -> 13"),
        (TRAIN.replace("rank: 2", "rank: 3"), "train.adapter.rank: 2 -> 3"),
        (f"{TRAIN}, learning_rate: 0.2", "train.learning_rate: 0.1 -> 0.2"),
        (TRAIN.replace("./base", "./other"), "base.digest: "),
    ],
)
def test_other_settings_are_refused_by_name_and_fresh_trains_anew(recipe, train, named):
    from tercet_learner import write_base

    train_recipe(recipe, threads=1)
    write_base(recipe.root / "other", mark=0.5)
    changed = write_recipe(recipe.root, train)
    with pytest.raises(StoreError, match=named) as caught:
        train_recipe(changed, threads=1)
    assert "--fresh" in str(caught.value)
    assert train_recipe(changed, fresh=True, threads=1).resumed == ""


def test_another_seed_is_refused_and_fresh_gives_another_adapter(recipe, undisturbed):
    train_recipe(recipe, threads=1)
    with pytest.raises(StoreError, match="seed: 0 -> 5"):
        train_recipe(recipe, seed=5)
    assert train_recipe(recipe, fresh=True, seed=5, threads=1).digest != undisturbed.digest


def test_other_records_are_refused(recipe, made):
    train_recipe(recipe, threads=1)
    manifest = default_run_dir(recipe) / "manifest.json"
    held = json.loads(manifest.read_text())
    del held["shards"][0]
    manifest.write_text(json.dumps(held))
    with pytest.raises(StoreError, match="records: "):
        train_recipe(recipe)


def test_settings_that_leave_the_bytes_alone_may_change(recipe, undisturbed):
    train_recipe(recipe, threads=1)
    changed = write_recipe(recipe.root, TRAIN.replace("checkpoint_every: 4", "checkpoint_every: 5"))
    assert train_recipe(changed).resumed == "already trained"


def test_without_a_run_the_message_names_the_command(made, tmp_path):
    recipe = write_recipe(tmp_path)
    with pytest.raises(StoreError, match=r"no finished run here; run first: tercet run .*learn\.yaml"):
        train_recipe(recipe)
    default_run_dir(recipe).mkdir(parents=True)
    with pytest.raises(StoreError, match="run first: tercet run"):
        train_recipe(recipe)


def test_records_of_a_changed_recipe_and_damaged_shards_are_refused(recipe):
    shard = next(default_run_dir(recipe).glob("shards/learner/test/*.parquet"))  # training itself wouldn't read it
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"x")
    with pytest.raises(CorruptError, match=shard.name):
        train_recipe(recipe)
    shard.write_bytes(whole)
    changed = recipe.path.read_text().replace("points: 80", "points: 81")
    recipe.path.write_text(changed)
    with pytest.raises(StoreError, match="another version of this recipe"):
        train_recipe(load_recipe(recipe.path))


def test_a_run_made_afresh_takes_its_training_along(recipe):
    train_recipe(recipe, threads=1)
    recipe.path.write_text(recipe.path.read_text().replace("points: 80", "points: 60"))
    smaller = load_recipe(recipe.path)
    run_recipe(smaller, workers=0, fresh=True)
    assert train_recipe(smaller, threads=1).resumed == ""


def test_a_fresh_start_that_cannot_begin_forgets_nothing(recipe):
    first = train_recipe(recipe, threads=1)
    missing = recipe.replaced(train={**recipe.data["train"], "base": "path:./nothing"})
    with pytest.raises(ModelError):
        train_recipe(missing, threads=1, fresh=True)
    no_gpu = recipe.replaced(train={**recipe.data["train"], "precision": "fp16"})
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train_recipe(no_gpu, threads=1, fresh=True)
    assert train_recipe(recipe, threads=1).resumed == "already trained"
    assert first.adapter.is_dir()


def test_a_run_in_hand_is_locked_for_training(recipe):
    with RunLock(default_run_dir(recipe)), pytest.raises(LockedError):
        train_recipe(recipe)


def test_a_loss_that_is_no_number_fails_and_keeps_the_checkpoint(recipe, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patched(patch, nan_at=9)
        with pytest.raises(TrainingFailed, match="step 9: the loss is nan"):
            train_recipe(recipe, threads=1)
    assert checkpoints.reached(default_run_dir(recipe) / "training").steps == 8
    assert train_recipe(recipe, threads=1).digest == undisturbed.digest


def test_an_interrupt_keeps_the_step_in_hand_and_the_next_call_goes_on(recipe, undisturbed):
    def interrupt(progress):
        if progress.stage == "train" and progress.done == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"step 6 of 12 is kept") as caught:
        train_recipe(recipe, threads=1, progress=interrupt)
    assert caught.value.exit_code == 130
    found: list[str] = []
    assert train_recipe(recipe, threads=1, announce=found.append).digest == undisturbed.digest
    assert found[0] == "resuming: step 6 of 12"


def test_the_terms_of_the_base_bind_a_commercial_recipe(recipe):
    base = recipe.root / "base"
    (base / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    notes: list[str] = []
    train_recipe(recipe, threads=1, announce=notes.append)
    assert "output terms are 'research'" in notes[0]
    recipe.path.write_text(recipe.path.read_text() + "use: commercial\n")
    commercial = load_recipe(recipe.path)
    manifest = default_run_dir(recipe) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(recipe.digest, commercial.digest))
    with pytest.raises(TermsError, match=r"accept_terms: \[path:\./base\]"):
        train_recipe(commercial, fresh=True)


def test_a_task_may_refuse_a_base(recipe):
    shutil.copytree(recipe.root / "base", recipe.root / "judge")
    refused = write_recipe(recipe.root, TRAIN.replace("naming,", "naming-both,").replace("./base", "./judge"))
    with pytest.raises(ModelError, match="judged this run's records"):
        train_recipe(refused)


def test_threads_are_as_asked_then_the_users_then_all_cores(monkeypatch):
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0))
    try:
        run.use_threads(1)
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        run.use_threads(None)
        assert torch.get_num_threads() == 1
        monkeypatch.delenv("OMP_NUM_THREADS")
        run.use_threads(None)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


def test_the_package_offers_training_however_it_was_imported(recipe):
    assert tercet.train(recipe, threads=1).steps == 12
    assert tercet.train(recipe).resumed == "already trained"  # the module is bound by now, and is still the function
    assert Path(loop.__file__).name == "loop.py"


def test_a_shard_that_the_manifest_does_not_name_is_refused(recipe):
    shard = next(default_run_dir(recipe).glob("shards/learner/train/*.parquet"))
    copy = shard.with_name("000000009999.parquet")
    copy.write_bytes(shard.read_bytes())
    with pytest.raises(CorruptError, match=r"train/000000009999\.parquet: a shard that the run's manifest doesn't"):
        train_recipe(recipe)
