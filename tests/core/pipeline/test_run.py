import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tercet.errors import BudgetError, CorruptError, LockedError, MakingError, NothingSurvived, StoreError
from tercet.pipeline import planned
from tercet.pipeline.progress import Progress
from tercet.pipeline.run import run_recipe
from tercet.records import Record
from tercet.store.shards import read_records
from tercet.store.summary import read_summary


def ids(run_dir: Path) -> list[str]:
    return [record.id for record in records(run_dir)]


def records(run_dir: Path) -> list[Record]:
    return list(read_records(run_dir, "probe"))


def numbers(run_dir: Path) -> list[int]:
    return sorted(record.payload["number"] for record in records(run_dir))


def shard_bytes(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in sorted(run_dir.rglob("*.parquet"))}


@pytest.fixture(params=[0, 1, 2], ids=lambda workers: f"workers={workers}")
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_every_item_becomes_a_record_with_lineage(write_recipe, tmp_path, workers):
    recipe = write_recipe("items: 23")
    result = run_recipe(recipe, workers=workers)
    assert numbers(result.run_dir) == list(range(23))
    assert result.run_dir == tmp_path / "runs" / "probe"
    record = next(read_records(result.run_dir, "probe", "test"))
    assert record.payload == {"number": 4, "blob": b"4" * 10}
    assert record.lineage["model"]["reference"] == "pkg:probe"
    assert record.lineage["parameters"] == {"doubled": 8}
    assert record.lineage["recipe"] == recipe.digest
    counts = result.summary["modalities"]["probe"]
    assert (counts["planned"], counts["made"], counts["accepted"], counts["failed"]) == (23, 23, 23, 0)
    assert counts["splits"] == {"test": 4, "train": 19}
    assert not (result.run_dir / "blobs").exists()


def test_the_number_of_workers_changes_no_shard(write_recipe, tmp_path):
    recipe = write_recipe("items: 40, gates: {odd: {every: 7}, corpus: {every: 31}}")
    shards = [shard_bytes(run_recipe(recipe, tmp_path / str(count), workers=count).run_dir) for count in (0, 1, 2)]
    assert shards[0] == shards[1] == shards[2]


def test_gates_reject_with_a_reason_and_rejects_are_kept(write_recipe, workers):
    result = run_recipe(write_recipe("items: 20, gates: {odd: {every: 5}}"), workers=workers)
    assert numbers(result.run_dir) == [n for n in range(20) if n % 5]
    counts = result.summary["modalities"]["probe"]
    assert counts["reasons"] == [["odd", "divisible", 4]]
    assert counts["rejected"] == 4
    assert len(list((result.run_dir / "rejects" / "probe").iterdir())) == 1


@pytest.mark.parametrize(("span", "asked"), [(4096, 24), (8, 25)], ids=["known", "estimated"])
def test_progress_counts_what_a_stage_is_asked_for(write_recipe, monkeypatch, span, asked):
    monkeypatch.setattr(planned, "SPAN", span)
    recipe = write_recipe("items: 30, gates: {odd: {every: 5}, broken: {every: 100}}")
    seen: list[Progress] = []
    run_recipe(recipe, workers=0, progress=seen.append)
    judged = [(one.done, one.total) for one in seen if "broken" in one.stage]
    assert judged[-1] == (asked, asked)  # of 30 items the first gate rejects six
    assert all(done <= total for done, total in judged)


def test_a_gate_that_cannot_run_rejects_and_says_so(write_recipe, workers):
    result = run_recipe(write_recipe("items: 12, gates: {broken: {every: 6}}"), workers=workers)
    assert numbers(result.run_dir) == [3, 4, 5, 9, 10, 11]  # the batches of three that hold 0 and 6 are lost
    assert result.summary["modalities"]["probe"]["reasons"] == [["broken", "could not run", 6]]


def test_corpus_gates_judge_in_plan_order_over_all_spans(write_recipe, monkeypatch, workers):
    monkeypatch.setattr(planned, "SPAN", 8)
    result = run_recipe(write_recipe("items: 30, gates: {corpus: {every: 10}}"), workers=workers)
    assert numbers(result.run_dir) == list(range(10))


def test_an_equal_payload_of_a_later_item_is_a_duplicate_across_spans(write_recipe, monkeypatch):
    monkeypatch.setattr(planned, "SPAN", 4)
    result = run_recipe(write_recipe("items: 12, same: [2, 3, 9]"), workers=0)
    assert numbers(result.run_dir) == sorted([-1, *(n for n in range(12) if n not in {2, 3, 9})])
    assert result.summary["modalities"]["probe"]["reasons"] == [["duplicate", "equal payload", 2]]
    assert not (result.run_dir / "blobs").exists()


def test_a_failing_item_is_kept_as_an_error_and_retried_alone(write_recipe, tmp_path, workers):
    recipe = write_recipe("items: 12, fail: [5], log: made")
    first = run_recipe(recipe, workers=workers)
    errors = first.summary["modalities"]["probe"]["errors"]
    assert [(e["error"], e["retryable"], e["count"]) for e in errors] == [("BackendError", True, 1)]
    assert numbers(first.run_dir) == [n for n in range(12) if n != 5]
    (tmp_path / "mended").touch()
    made_before = (tmp_path / "made").read_text().split()
    said: list[str] = []
    again = run_recipe(recipe, workers=workers, retry_failed=True, announce=said.append)
    assert (tmp_path / "made").read_text().split()[len(made_before) :] == ["5"]
    assert numbers(again.run_dir) == list(range(12))
    assert said == ["resuming: probe 11 of 12 done, 1 retryable failures"]
    counts = again.summary["modalities"]["probe"]
    assert (counts["accepted"], counts["failed"], counts["made"]) == (12, 0, 12)
    undisturbed = run_recipe(write_recipe("items: 12, fail: [5], log: made"), tmp_path / "other", workers=0)
    assert shard_bytes(again.run_dir) == shard_bytes(undisturbed.run_dir)


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_dies_costs_one_item(write_recipe, count):
    result = run_recipe(write_recipe("items: 12, die: [5]"), workers=count)
    assert numbers(result.run_dir) == [n for n in range(12) if n != 5]
    assert result.summary["modalities"]["probe"]["errors"][0]["error"] == "WorkerDied"


def test_a_second_run_does_nothing_again(write_recipe, tmp_path):
    recipe = write_recipe("items: 8, log: made")
    first = shard_bytes(run_recipe(recipe, workers=0).run_dir)
    assert shard_bytes(run_recipe(recipe, workers=0).run_dir) == first
    assert len((tmp_path / "made").read_text().split()) == 8


def test_waiting_generators_journal_every_answer_and_close(write_recipe, tmp_path):
    recipe = write_recipe("items: 20, generator: waiting", more="budget: {requests: 1000}")
    result = run_recipe(recipe, workers=0)
    assert numbers(result.run_dir) == list(range(20))
    assert result.summary["spend"] == {"requests": 40.0, "tokens": 120.0, "money": 0.0}
    assert (tmp_path / "closed").exists()


def test_a_spent_budget_stops_the_run_and_a_raised_one_goes_on(write_recipe, tmp_path):
    with pytest.raises(BudgetError, match=r"budget\.requests: 13 of 13 spent"):
        run_recipe(write_recipe("items: 20, generator: waiting", more="budget: {requests: 13}"), workers=0)
    result = run_recipe(write_recipe("items: 20, generator: waiting", more="budget: {requests: 60}"), workers=0)
    assert numbers(result.run_dir) == list(range(20))
    asked = (tmp_path / "asked").read_text().split()
    assert len(asked) == len(set(asked)) == 40  # nothing paid for is asked again


RUN = """
import sys
from pathlib import Path
from tercet.recipe import load_recipe
from tercet.pipeline.progress import Progress
from tercet.pipeline.run import run_recipe
run_recipe(load_recipe(sys.argv[1]), workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumes_to_the_same_shards(write_recipe, tmp_path, count, sent):
    recipe = write_recipe("items: 60, seconds: 0.02, log: made, gates: {odd: {every: 9}}")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(recipe.path), str(count)], stderr=subprocess.PIPE)
    while not (tmp_path / "made").exists() or len((tmp_path / "made").read_text().split()) < 15:
        time.sleep(0.02)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode != 0
    if sent == signal.SIGINT:
        assert b"what was done is kept" in stderr
        assert read_summary(recipe.root / "runs" / "probe")["state"] == "interrupted"
    time.sleep(0.3)  # orphaned workers notice that their driver is gone
    result = run_recipe(recipe, workers=count)
    whole = run_recipe(recipe, tmp_path / "whole", workers=0)
    assert shard_bytes(result.run_dir) == shard_bytes(whole.run_dir)
    assert ids(result.run_dir) == ids(whole.run_dir)


def test_another_recipe_is_refused_with_what_changed(write_recipe):
    run_recipe(write_recipe("items: 5"), workers=0)
    with pytest.raises(StoreError, match=r"modalities\.probe\.items: 5 -> 6\n.*--fresh.*new name"):
        run_recipe(write_recipe("items: 6"), workers=0)
    assert len(numbers(run_recipe(write_recipe("items: 6"), workers=0, fresh=True).run_dir)) == 6


def test_no_survivor_is_a_message_with_the_reasons(write_recipe):
    with pytest.raises(NothingSurvived, match=r"probe: odd: divisible \(5\)"):
        run_recipe(write_recipe("items: 5, gates: {odd: {every: 1}}"), workers=0)


def test_an_empty_planned_cell_fails_the_run_and_keeps_the_rest(write_recipe):
    with pytest.raises(StoreError, match=r"1 planned cells kept nothing, first: probe parity=0 \(5 planned\)"):
        run_recipe(write_recipe("items: 10, gates: {odd: {every: 2}}"), workers=0)


def test_a_second_process_on_the_run_is_refused(write_recipe, tmp_path):
    recipe = write_recipe("items: 60, seconds: 0.05, log: made")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(recipe.path), "0"])
    while not (tmp_path / "made").exists():
        time.sleep(0.02)
    with pytest.raises(LockedError, match=str(process.pid)):
        run_recipe(recipe, workers=0)
    process.kill()
    process.wait()


def test_a_damaged_journal_is_named_and_nothing_is_lost(write_recipe):
    recipe = write_recipe("items: 5")
    run_dir = run_recipe(recipe, workers=0).run_dir
    before = shard_bytes(run_dir)
    journal = run_dir / "journal.sqlite"
    damaged = bytearray(journal.read_bytes())
    damaged[100:4000] = os.urandom(3900)
    journal.write_bytes(bytes(damaged))
    with pytest.raises(CorruptError, match=r"journal\.sqlite: the journal is damaged.*--fresh"):
        run_recipe(recipe, workers=0)
    assert shard_bytes(run_dir) == before


def test_a_changed_term_list_counts_as_a_changed_recipe(write_recipe, tmp_path):
    (tmp_path / "terms.txt").write_text("aspirin\n")
    recipe = write_recipe("items: 5", more="sources: {terms: terms.txt}")
    run_recipe(recipe, workers=0)
    (tmp_path / "terms.txt").write_text("ibuprofen\n")
    with pytest.raises(StoreError, match="content of the terms"):
        run_recipe(recipe, workers=0)


def test_status_reads_a_run_without_writing(write_recipe):
    run_dir = run_recipe(write_recipe("items: 5"), workers=0).run_dir
    before = {path: path.stat().st_mtime_ns for path in run_dir.iterdir() if not path.name.endswith(("-shm", "-wal"))}
    assert read_summary(run_dir)["state"] == "done"
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert json.loads((run_dir / "manifest.json").read_text())["version"] == 1


def test_nothing_made_is_a_failure_and_no_rejection(write_recipe, tmp_path):
    recipe = write_recipe("items: 2, fail: [0, 1]")
    with pytest.raises(MakingError, match=r"probe: BackendError: item 0 is not to be had \(2\).*--retry-failed"):
        run_recipe(recipe, workers=0)
    (tmp_path / "mended").touch()
    assert len(numbers(run_recipe(recipe, workers=0, retry_failed=True).run_dir)) == 2
