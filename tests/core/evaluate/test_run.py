import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tests.core.learner.world import PLUGIN, copy_run, in_a_child, installed, make_run, write_recipe

import tercet
from tercet.errors import CorruptError, ModelError, StoreError, UsageError
from tercet.evaluate.answers import content_digest
from tercet.evaluate.counting import Heard, Judge, suite_numbers
from tercet.evaluate.run import evaluate_recipe, try_recipe
from tercet.modality import Shown
from tercet.pipeline.run import Interrupted, default_run_dir
from tercet.recipe import load_recipe
from tercet.report import write_report
from tercet.report.proof import read_proof
from tercet.train.run import train_recipe
from tercet.train.task import Example, Measured, Suite, find_task

TRAIN = "task: naming, base: 'path:./base', steps: 30, micro_batch: 8, learning_rate: 0.5, adapter: {rank: 4}"


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


@pytest.fixture
def asked():
    from tercet_learner import Naming  # type: ignore[import-not-found]

    Naming.asked.clear()
    return Naming.asked


def evaluate(recipe, **more):
    return evaluate_recipe(recipe, threads=1, **more)


def test_an_adapter_that_learned_is_promoted_with_its_numbers(recipe):
    found = evaluate(recipe)
    assert found["decision"]["verdict"] == "promote", found["decision"]["reasons"]
    primary = found["suites"]["held-out"]["metrics"]["b-wer"]
    assert (primary["base"], primary["tuned"], primary["items"], primary["sources"]) == (100.0, 0.0, 10, 10)
    assert (primary["low"], primary["high"], primary["few"]) == (-100.0, -100.0, False)
    assert found["suites"]["held-out"]["rates"]["tuned"] == {"false triggers": 0.0, "recall": 100.0}
    assert found["suites"]["held-out"]["rates"]["base"]["recall"] == 0.0
    assert set(found["suites"]["held-out"]["metrics"]) == {"wer", "b-wer", "u-wer"}  # rates are not compared
    assert found["suites"]["everyday"]["metrics"]["wer"]["relative"] is None  # 0 over 0
    assert json.loads((default_run_dir(recipe) / "evaluation.json").read_text()) == found


def test_what_was_fixed_is_shown_with_both_answers(recipe):
    fixed = evaluate(recipe)["suites"]["held-out"]["examples"]["fixed"]
    assert len(fixed) == 10
    assert all(one["tuned"] == one["reference"] != one["base"] for one in fixed)
    assert fixed[0]["slices"]["parity"] in {"even", "odd"}


def test_a_slice_of_few_sources_claims_no_interval(recipe):
    slices = evaluate(recipe)["suites"]["held-out"]["slices"]
    few, many = slices["rare"]["yes"]["wer"], slices["rare"]["no"]["wer"]
    assert (few["sources"], few["few"], few["low"], few["high"], few["detectable"]) == (3, True, None, None, None)
    assert (many["sources"], many["few"]) == (17, False)
    assert many["low"] <= many["change"] <= many["high"]
    assert slices["parity"]["even"]["wer"]["items"] + slices["parity"]["odd"]["wer"]["items"] == 20


def test_a_second_evaluation_decodes_nothing_and_writes_the_same_bytes(recipe, asked):
    evaluate(recipe)
    first = (default_run_dir(recipe) / "evaluation.json").read_bytes()
    assert asked == [("base", 32), ("tuned", 32)]
    asked.clear()
    evaluate(recipe)
    assert (default_run_dir(recipe) / "evaluation.json").read_bytes() == first
    assert asked == []
    evaluate(recipe, fresh=True)
    assert asked == [("base", 32), ("tuned", 32)]


@pytest.mark.parametrize("torn", [b"", b'{"given":"ab'])
def test_a_killed_evaluation_goes_on_where_it_was(recipe, asked, monkeypatch, torn):
    from tercet_learner import Naming

    with monkeypatch.context() as patch:
        patch.setattr(Naming, "die_after", 20)
        assert in_a_child(lambda: evaluate(recipe)) == -signal.SIGKILL
    book = max((default_run_dir(recipe) / "evaluation").glob("*.jsonl"), key=lambda path: path.stat().st_size)
    with book.open("ab") as file:
        file.write(torn)
    evaluate(recipe)
    assert asked == [("base", 12), ("tuned", 32)]
    asked.clear()
    evaluate(recipe)
    assert asked == []


def test_a_damaged_answer_is_named_and_fresh_decodes_again(recipe):
    evaluate(recipe)
    book = min((default_run_dir(recipe) / "evaluation").glob("*.jsonl"))
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join([lines[0], b"rot\n", *lines[1:]]))
    with pytest.raises(CorruptError, match=rf"{book.name}:2: damaged .* tercet eval --fresh"):
        evaluate(recipe)
    evaluate(recipe, fresh=True)


def test_an_interrupt_keeps_every_answer(recipe, asked):
    def interrupt(progress):
        if progress.stage == "evaluate: tuned" and progress.done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="what was decoded is kept"):
        evaluate(recipe, progress=interrupt)
    asked.clear()
    evaluate(recipe)
    assert asked == [("tuned", 25)]


def test_a_task_that_shares_work_gives_the_same_evaluation_in_one_pass(recipe, asked):
    alone = evaluate(recipe)
    together = write_recipe(recipe.root, TRAIN.replace("naming,", "naming-both,"))
    train_recipe(together, threads=1, fresh=True)
    asked.clear()
    found = evaluate(together, fresh=True)
    assert asked[0] == ("both", 32)
    assert found["suites"] == alone["suites"]


def test_another_scale_is_judged_and_not_written(recipe, asked):
    evaluate(recipe)
    written = (default_run_dir(recipe) / "evaluation.json").read_bytes()
    asked.clear()
    found = evaluate(recipe, scale=0.0)
    assert asked == [("tuned", 32)]  # the base's answers are there
    assert found["decision"]["verdict"] == "hold"
    assert found["suites"]["held-out"]["metrics"]["b-wer"]["tuned"] == 100.0
    assert found["adapter"]["scale"] == 0.0
    assert (default_run_dir(recipe) / "evaluation.json").read_bytes() == written
    assert evaluate(recipe, scale=1.0)["decision"]["verdict"] == "promote"


def test_another_adapter_is_judged_and_not_written(recipe, trained):
    found = evaluate(recipe, adapter=default_run_dir(recipe) / "adapters/learn")
    assert found["decision"]["verdict"] == "promote"
    assert not (default_run_dir(recipe) / "evaluation.json").exists()


def test_a_new_adapter_takes_the_old_evaluation_away(recipe):
    evaluate(recipe)
    path = default_run_dir(recipe) / "evaluation.json"
    assert train_recipe(recipe, threads=1).resumed == "already trained"
    assert path.exists()
    train_recipe(write_recipe(recipe.root, f"{TRAIN}, lora_scale: 0.5"), threads=1)
    assert not path.exists()


def test_a_limit_spreads_over_each_suite(recipe, asked):
    limited = write_recipe(recipe.root, TRAIN, "evaluate: {limit: 10}")
    assert evaluate(limited)["suites"]["held-out"]["items"] == 10
    assert asked == [("base", 20), ("tuned", 20)]


def test_nothing_to_judge_says_what_to_run(recipe, tmp_path):
    (tmp_path / "bare").mkdir()
    bare = write_recipe(tmp_path / "bare")
    with pytest.raises(StoreError, match="run first: tercet run"):
        evaluate(bare)
    default_run_dir(bare).mkdir(parents=True)
    with pytest.raises(ModelError, match="train one with: tercet train"):
        evaluate(bare)


def test_an_adapter_of_another_base_is_refused(recipe):
    from tercet_learner import write_base

    write_base(recipe.root / "base", mark=0.5)
    with pytest.raises(ModelError, match=r"trained on path:\./base \(digest"):
        evaluate(recipe)


def test_without_one_primary_suite_nothing_is_decided(recipe, monkeypatch):
    from tercet_learner import Naming

    suites = Naming.suites
    monkeypatch.setattr(Naming, "suites", lambda self, run_dir: suites(self, run_dir)[:1])
    with pytest.raises(UsageError, match="one primary suite with examples decides, and there is none"):
        evaluate(recipe)


def test_trying_answers_with_both_models_in_the_order_given(recipe):
    answers = try_recipe(recipe, ["0,0,1,0", "1,0,0,0", "0,0,1,0"])
    assert [(one["base"], one["tuned"]) for one in answers] == [
        ("north", "aspirin"),
        ("north", "north"),
        ("north", "aspirin"),
    ]


@pytest.fixture
def shows(monkeypatch):
    """Let the learner show what it was given and what it answered; its HTML is hostile."""
    from tercet_learner import Naming

    def example(self, example):
        return Shown(example.reference.upper(), f"<b>{example.reference}</b>")

    def answer(self, answer):
        return Shown(answer.upper(), f"<i onclick=x>{answer}</i><script>x</script>")

    monkeypatch.setattr(Naming, "show_example", example, raising=False)
    monkeypatch.setattr(Naming, "show_answer", answer, raising=False)


@pytest.mark.usefixtures("shows")
def test_a_task_shows_its_examples_and_answers_in_its_own_way(recipe):
    (one, *_) = evaluate(recipe)["suites"]["held-out"]["examples"]["fixed"]
    assert one["tuned"] == one["reference"] == one["html"]["reference"][3:-4].upper()
    page = write_report(default_run_dir(recipe)).read_text()
    assert f"<td>{one['html']['reference']}</td>" in page
    assert f"<i>{one['tuned'].lower()}</i></td>" in page
    assert "<script" not in page
    assert "onclick" not in page
    (tried,) = try_recipe(recipe, ["0,0,1,0"])
    assert (tried["base"], tried["html"]["tuned"][:13]) == ("NORTH", "<i onclick=x>")


def test_the_page_shows_what_was_evaluated(recipe):
    tercet.evaluate(recipe, threads=1)
    proof = read_proof(default_run_dir(recipe))
    assert proof is not None
    assert proof.primary is not None
    assert (proof.primary.name, proof.primary.base, proof.primary.tuned) == ("b-wer", 100.0, 0.0)
    assert proof.suites[0].name == "points never trained on"
    assert [rate.name for rate in proof.rates] == ["false triggers", "recall", "false triggers"]
    assert {row.few for suite in proof.slices for row in suite.rows} == {True, False}
    page = write_report(default_run_dir(recipe)).read_text()
    assert "Decision: promote" in page
    assert "few sources" in page
    assert page.count('<td class="tuned">aspirin</td>') + page.count('<td class="tuned">ibuprofen</td>') == 8


def test_an_evaluation_that_is_none_is_named(recipe):
    path = default_run_dir(recipe) / "evaluation.json"
    path.write_text('{"version": 1}')
    with pytest.raises(CorruptError, match="not an evaluation"):
        read_proof(default_run_dir(recipe))
    path.write_text('{"version": 2}')
    with pytest.raises(StoreError, match="version 2 is newer"):
        read_proof(default_run_dir(recipe))


def test_contents_are_named_by_all_they_hold():
    array = np.arange(6, dtype=np.float32)
    contents = [array, array.reshape(2, 3), array.astype(np.float64), b"ab", "ab", ["a", "b"], {"a": "b"}, 3, None]
    assert len({content_digest(one) for one in contents}) == len(contents)
    assert content_digest(array) == content_digest(array.copy()[::1])
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})


def test_what_was_broken_stands_worst_first_and_one_per_source(recipe):
    def one(name, source, base, tuned):
        counts = [Measured({"wer": (errors, 9.0)}) for errors in (base, tuned)]
        return Heard(Example(name, source, "said", 0), "heard", "heard", *counts)

    rows = [("a", "s1", 0, 1), ("b", "s2", 0, 2), ("c", "s1", 0, 4), ("d", "s3", 5, 5), ("e", "s4", 3, 0)]
    heard = [one(*row) for row in rows]
    task = find_task(recipe)
    shown = suite_numbers(task, Suite("any", "general", "any", []), heard, Judge(200, 0.95))["examples"]
    assert [example["id"] for example in shown["broken"]] == ["c", "b"]
    assert [example["id"] for example in shown["fixed"]] == ["e"]


def test_where_every_answer_is_kept_torch_is_not_even_imported(recipe):
    evaluate(recipe)
    code = (
        "import sys; from tercet.cli.app import run_command; code = run_command(sys.argv[1:]);"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    arguments = [sys.executable, "-c", code, "eval", str(recipe.path)]
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "decision: promote" in done.stdout) == (0, True), done.stderr


def test_records_that_the_adapter_was_not_trained_on_are_refused(recipe, tmp_path):
    """The points held out of other records may be those trained on."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(default_run_dir(recipe) / "adapters" / "learn", elsewhere)
    card = json.loads((elsewhere / "tercet.json").read_text())
    (elsewhere / "tercet.json").write_text(json.dumps(card | {"records": "other"}))
    said: list[str] = []
    evaluate(recipe, adapter=elsewhere, announce=said.append)
    assert any("was trained on other records" in line for line in said)
    (default_run_dir(recipe) / "adapters/learn/tercet.json").write_text(json.dumps(card | {"records": "other"}))
    with pytest.raises(StoreError, match=r"trained on other records than .* tercet train --fresh"):
        evaluate(recipe)


def test_shards_are_held_against_their_digests_before_they_judge(recipe):
    shard = next(default_run_dir(recipe).glob("shards/learner/test/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match=shard.name):
        evaluate(recipe)


def one_example(reference):
    return [Example("1", "s", reference, np.zeros(4, np.float32))]


def with_suite(monkeypatch, suite):
    from tercet_learner import Naming

    suites = Naming.suites
    monkeypatch.setattr(Naming, "suites", lambda self, run_dir: [*suites(self, run_dir), suite])
    return Naming


def test_a_general_suite_without_examples_or_with_anothers_name_is_refused(recipe, monkeypatch):
    with monkeypatch.context() as patch:
        with_suite(patch, Suite("own", "general", "own", []))
        with pytest.raises(UsageError, match="general suite own holds no example"):
            evaluate(recipe)
    with_suite(monkeypatch, Suite("held-out", "general", "own", one_example("north")))
    with pytest.raises(UsageError, match="two suites are called 'held-out'"):
        evaluate(recipe)


def test_a_general_suite_without_units_does_not_count_as_unharmed(recipe, monkeypatch):
    naming = with_suite(monkeypatch, Suite("own", "general", "own", one_example("")))
    measure = naming.measure
    nothing = Measured({"wer": (1.0, 0.0)})
    monkeypatch.setattr(
        naming, "measure", lambda self, one, said: measure(self, one, said) if one.reference else nothing
    )
    with pytest.raises(UsageError, match="suite own: no example has units of wer"):
        evaluate(recipe)
