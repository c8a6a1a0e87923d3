import functools
import json
import os
import shutil
import signal

import pytest
from tests.core.learner.world import copy_run, installed, make_run, write_recipe

from tercet.cli.app import run_command
from tercet.evaluate import seeds
from tercet.modality import Shown
from tercet.pipeline.run import default_run_dir, run_recipe
from tercet.recipe import load_recipe

TRAIN = "task: naming, base: 'path:./base', steps: 30, micro_batch: 8, learning_rate: 0.5, adapter: {rank: 4}"


@pytest.fixture(scope="module", autouse=True)
def learner():
    with installed():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_run(folder)
    write_recipe(folder, TRAIN)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(copy_run(made, tmp_path))
    return tmp_path


def call(capfd, *arguments):
    code = run_command(list(arguments))
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_training_and_judging_from_the_command_line(folder, capfd):
    code, out, _ = call(capfd, "train", "learn.yaml", "--threads", "1")
    assert (code, "next: tercet eval learn.yaml" in out) == (0, True)
    code, out, _ = call(capfd, "eval", "learn.yaml", "--threads", "1")
    assert code == 0
    assert "decision: promote" in out
    assert "holds: b-wer 100.00 -> 0.00 (change -100.00, -100.00 to -100.00): must lie wholly below 0" in out
    row = next(line.split() for line in out.splitlines() if "held-out" in line)
    assert row == [
        "held-out",
        "primary",
        "b-wer",
        "100.00",
        "0.00",
        "-100.00",
        *["-100.00", "to", "-100.00", "10", "10", "0.00"],
    ]
    code, out, _ = call(capfd, "try", "learn.yaml", "0,0,1,0")
    assert (code, out.split()[-3:]) == (0, ["0,0,1,0", "north", "aspirin"])


def test_what_is_better_seen_than_read_is_tried_on_a_page(folder, capfd, monkeypatch):
    from tercet_learner import Naming  # type: ignore[import-not-found]

    monkeypatch.setattr(Naming, "show_example", lambda self, one: Shown("", "<b>point</b>"), raising=False)
    monkeypatch.setattr(Naming, "show_answer", lambda self, said: Shown(said, f"<i>{said}</i><script>"), raising=False)
    assert call(capfd, "train", "learn.yaml", "--threads", "1")[0] == 0
    code, out, _ = call(capfd, "try", "learn.yaml", "0,0,1,0")
    assert (code, out.strip().endswith("runs/learn/try.html")) == (0, True)
    page = (folder / "runs/learn/try.html").read_text()
    assert "<td><b>point</b></td><td><i>north</i></td><td><i>aspirin</i></td>" in page
    assert "<script" not in page

    (folder / "runs/learn/adapters/learn").rename(folder / "mine")
    shutil.rmtree(folder / "runs")
    code, out, _ = call(capfd, "try", "learn.yaml", "0,0,1,0", "--adapter", "mine")
    assert (code, (folder / "runs/learn/try.html").read_text()) == (0, page)


def test_a_verdict_other_than_promote_is_a_result_too(folder, capfd):
    assert call(capfd, "train", "learn.yaml")[0] == 0
    code, out, _ = call(capfd, "eval", "learn.yaml", "--scale", "0")
    assert (code, "decision: hold" in out, "fails: b-wer" in out) == (0, True, True)
    assert not (folder / "runs/learn/evaluation.json").exists()


def test_json_is_one_object_and_eval_prints_what_it_wrote(folder, capfd):
    code, out, _ = call(capfd, "train", "learn.yaml", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 30)
    _, out, _ = call(capfd, "eval", "learn.yaml", "--json")
    assert json.loads(out) == json.loads((folder / "runs/learn/evaluation.json").read_text())
    _, out, _ = call(capfd, "try", "learn.yaml", "1,0,0,0", "--json")
    assert json.loads(out) == {"answers": [{"input": "1,0,0,0", "base": "north", "tuned": "north"}]}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["eval", "learn.yaml"], 1, "train one with: tercet train"),
        (["try", "learn.yaml", "1,0,0,0"], 1, "train one with: tercet train"),
        (["train", "learn.yaml", "--out", "gone"], 1, "gone: no finished run here; run first: tercet run learn.yaml"),
        (["train", "untrained.yaml"], 2, "no `train` section"),
        (["train", "stranger.yaml"], 2, "train.task: 'flying' is not one of"),
        (["train", "learn.yaml", "--threads", "0"], 2, "greater than or equal to 1"),
        (["eval", "learn.yaml", "--adapter", "gone"], 1, "gone: no adapter here"),
        (["eval", "learn.yaml", "--adapter", "learn.yaml"], 1, "learn.yaml: no adapter's folder"),
        (["train", "pattern.yaml"], 2, 'train.adapter.targets: "*.q_proj": not a regular expression'),
        (["bench", "demo", "--recipe", "elsewhere.yaml"], 2, "train.task naming needs modalities.learner; fill it"),
        (["bench", "everything"], 2, "no benchmark 'everything'; choose from demo"),
        (["bench", "demo", "--recipe", "gone.yaml"], 2, "gone.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_a_stable_code(folder, capfd, arguments, code, said):
    text = (folder / "learn.yaml").read_text()
    (folder / "untrained.yaml").write_text(text.replace(f"train: {{{TRAIN}}}", ""))
    (folder / "stranger.yaml").write_text(text.replace("task: naming", "task: flying"))
    (folder / "pattern.yaml").write_text(text.replace("rank: 4", "rank: 4, targets: '*.q_proj'"))
    (folder / "elsewhere.yaml").write_text(text.replace("learner: {points: 80}", "text: {}"))
    found, out, err = call(capfd, *arguments)
    assert (found, said in err, out) == (code, True, ""), err
    found, out, _ = call(capfd, *arguments, "--json")
    assert json.loads(out)["exit_code"] == code


def test_an_input_that_is_none_is_named(folder, capfd):
    call(capfd, "train", "learn.yaml")
    code, _, err = call(capfd, "try", "learn.yaml", "hello")
    assert (code, "input 'hello': not numbers" in err) == (2, True)


def test_an_interrupted_training_leaves_with_130_and_goes_on(folder, capfd, monkeypatch):
    from tercet_learner import Naming

    loss = Naming.loss

    def interrupted(self, model, batch):
        if self.step == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Naming, "loss", interrupted)
        code, out, err = call(capfd, "train", "learn.yaml")
    assert (code, out, "interrupted: step 10 of 30 is kept" in err) == (130, "", True), err
    code, _, err = call(capfd, "train", "learn.yaml")
    assert (code, "resuming: step 10 of 30" in err) == (0, True)
    code, _, err = call(capfd, "train", "learn.yaml")
    assert (code, "already trained" in err) == (0, True)


def test_the_loop_over_seeds_makes_one_table_and_skips_what_is_finished(folder, capfd, monkeypatch):
    monkeypatch.setattr(seeds, "run_recipe", functools.partial(run_recipe, workers=0))
    code, out, err = call(capfd, "bench", "demo", "--seeds", "2", "--recipe", "learn.yaml", "--out", "seeds")
    assert code == 0, err
    found = json.loads((folder / "seeds/seeds.json").read_text())
    assert list(found["seeds"]) == ["0", "1"]
    adapters = {one["adapter"]["digest"] for one in found["seeds"].values()}
    assert len(adapters) == 2
    table = (folder / "seeds/seeds.md").read_text()
    assert "| set | measure | seed 0 | seed 1 | mean |" in table
    assert "| decision | | promote | promote | |" in table
    cell = "100.00 → 0.00 (-100.00, -100%)"
    assert f"| points never trained on | b-wer | {cell} | {cell} | {cell} |" in table
    assert table.startswith("`tercet bench demo --seeds 2 --recipe learn.yaml` (")
    assert cell in out
    written = {path: path.stat().st_mtime_ns for path in (folder / "seeds").rglob("*.jsonl")}
    assert len(written) >= 6  # each seed's training log, and the answers of two models
    code, again, err = call(capfd, "bench", "demo", "--seeds", "2", "--recipe", "learn.yaml", "--out", "seeds")
    assert (code, err.count("already trained")) == (0, 2), err
    assert {path: path.stat().st_mtime_ns for path in (folder / "seeds").rglob("*.jsonl")} == written
    assert again == out


def test_a_changed_recipe_is_not_taken_for_a_finished_seed(folder, capfd, monkeypatch):
    monkeypatch.setattr(seeds, "run_recipe", functools.partial(run_recipe, workers=0))
    arguments = ["bench", "demo", "--seeds", "1", "--recipe", "learn.yaml", "--out", "seeds"]
    assert call(capfd, *arguments)[0] == 0
    write_recipe(folder, TRAIN.replace("steps: 30", "steps: 20"))
    code, _, err = call(capfd, *arguments)
    assert (code, "train.steps: 30 -> 20" in err) == (1, True), err
    code, out, err = call(capfd, *arguments, "--fresh", "--json")
    assert (code, json.loads(out)["seeds"]["0"]["adapter"]["steps"]) == (0, 20), err


def test_a_run_elsewhere_is_trained_there(folder, capfd):
    default_run_dir(load_recipe("learn.yaml")).rename(folder / "elsewhere")
    code, _, err = call(capfd, "train", "learn.yaml", "--out", "elsewhere")
    assert (code, (folder / "elsewhere/adapters/learn/tercet.json").is_file()) == (0, True), err
