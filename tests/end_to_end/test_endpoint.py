"""Dialogs by an endpoint, through `tercet run` and the real client: what was answered once is never asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.backends.server import FakeEndpoint, running

from tercet.store.journal import read_only
from tercet.store.shards import read_records

TERCET = str(Path(sys.executable).with_name("tercet"))
CONCURRENCY = 8
KEY = "sk-end-to-end-0123456789"
RECIPE = """\
version: 1
name: asked
{more}
sources: {{terms: terms.txt}}
modalities:
  text:
    turns: [2, 3]
    gates: {{repetition: null, near_duplicates: null}}
    endpoint:
      dialogs: {dialogs}
      url: {url}
      model: "{model}"
      key_env: TERCET_TEST_KEY
      concurrency: {concurrency}
      price_per_1k_prompt_tokens: 2
      price_per_1k_completion_tokens: 5
      licence: Apache-2.0
      output_terms: free
"""
PRICE = (5 * 2 + 2 * 5) / 1000  # of one answer: the fake endpoint counts 5 tokens of prompt and 2 of completion


def write(folder: Path, endpoint: FakeEndpoint, dialogs: int = 12, model: str = "ok", more: str = "") -> Path:
    (folder / "terms.txt").write_text("aspirin\nwarfarin\nsertraline\nmetformin\n")
    path = folder / "asked.yaml"
    given = {"dialogs": dialogs, "url": endpoint.url, "model": model, "concurrency": CONCURRENCY, "more": more}
    path.write_text(RECIPE.format(**given))
    return path


def start(recipe: Path, *options: str) -> subprocess.Popen[str]:
    command = [TERCET, "run", str(recipe), "--workers", "0", "--json", *options]
    environment = {**os.environ, "TERCET_TEST_KEY": KEY}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(recipe: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    with start(recipe, *options) as process:
        said, noted = process.communicate(timeout=60)
    return process.returncode, json.loads(said), noted


def asked(endpoint: FakeEndpoint) -> Counter[str]:
    """Count each request; no two of a run are alike, for each has its own seed."""
    return Counter(json.dumps(request, sort_keys=True) for request in endpoint.requests)


def kill_at(num_requests: int, endpoint: FakeEndpoint, process: subprocess.Popen[str]) -> None:
    """Kill the run once so many requests came."""
    deadline = time.monotonic() + 60
    while len(endpoint.requests) < num_requests and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert len(endpoint.requests) >= num_requests, f"only {len(endpoint.requests)} requests came"


def kept_answers(run_dir: Path) -> int:
    with read_only(run_dir / "journal.sqlite") as query:
        return int(query("SELECT COUNT(*) FROM answers", ())[0][0])


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with running() as served:
        yield served


def test_every_answer_is_journalled_and_paid_once(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    recipe = write(tmp_path, endpoint)
    code, summary, noted = run(recipe)
    assert code == 0, noted
    run_dir = tmp_path / "runs" / "asked"
    assert summary["modalities"]["text"]["accepted"] == 12
    requests = len(endpoint.requests)
    assert set(asked(endpoint).values()) == {1}
    assert kept_answers(run_dir) == requests
    assert summary["spend"] == {"requests": requests, "tokens": 7 * requests, "money": pytest.approx(PRICE * requests)}
    assert endpoint.keys == [f"Bearer {KEY}"] * requests

    record = next(read_records(run_dir, "text"))
    said = [one["content"] for one in record.payload["messages"]]
    asks = {request["messages"][-1]["content"] for request in endpoint.requests}
    assert set(said[2::2]) <= asks, "an answer isn't the endpoint's"
    assert record.lineage["model"]["reference"] == "endpoint:ok"
    assert (record.lineage["model"]["licence"], record.lineage["model"]["output_terms"]) == ("Apache-2.0", "free")

    code, again, noted = run(recipe)
    assert (code, len(endpoint.requests)) == (0, requests)
    assert again["resumed"] == "resuming: text 12 of 12 done"


def test_the_key_reaches_no_file_of_the_run(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    code, _, noted = run(write(tmp_path, endpoint, model="401"))
    assert code == 1
    assert KEY not in noted
    code, _, noted = run(write(tmp_path, endpoint), "--fresh")
    assert (code, KEY in noted) == (0, False)
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holding == []


def test_after_kill_9_half_way_at_most_what_was_in_flight_is_asked_again(tmp_path: Path) -> None:
    with running(latency_seconds=0.05) as endpoint:
        recipe = write(tmp_path, endpoint, dialogs=40)
        with start(recipe) as process:
            kill_at(45, endpoint, process)
        before = asked(endpoint)
        assert 45 <= before.total() < 80, "the kill came too late to prove anything"
        code, summary, noted = run(recipe)
        after = asked(endpoint)
    assert code == 0, noted
    assert summary["resumed"].startswith("resuming: text ")
    repeated = {request: times for request, times in after.items() if times > 1}
    assert len(repeated) <= CONCURRENCY
    assert set(repeated.values()) <= {2}
    assert summary["modalities"]["text"]["accepted"] == 40
    # an answer that was paid for and never arrived counts as spent, but for what was in flight: with no budget nothing
    # waits for the count to be durable
    assert after.total() - CONCURRENCY <= summary["spend"]["requests"] <= after.total()


@pytest.mark.parametrize("kind", ["requests", "tokens", "money"])
def test_a_spent_budget_stops_the_run_and_a_raised_one_goes_on(
    endpoint: FakeEndpoint, tmp_path: Path, kind: str
) -> None:
    limit = {"requests": "15", "tokens": "1000", "money": "0.1"}[kind]
    code, said, _ = run(write(tmp_path, endpoint, dialogs=30, more=f"budget: {{{kind}: {limit}}}"))
    assert code == 1
    assert f"budget.{kind}: " in said["error"]
    assert "raise the budget and run again" in said["error"]
    stopped_at = len(endpoint.requests)
    whole = 30 * 2  # at least: each dialog asks twice
    assert 0 < stopped_at < whole
    if kind == "requests":
        assert stopped_at == 15
    if kind == "money":  # what was in flight when the money ran out is paid as well
        assert stopped_at <= 0.1 / PRICE + CONCURRENCY

    code, summary, noted = run(write(tmp_path, endpoint, dialogs=30, more=f"budget: {{{kind}: 1000000}}"))
    assert code == 0, noted
    assert summary["modalities"]["text"]["accepted"] == 30
    assert set(asked(endpoint).values()) == {1}, "what was paid for was asked again"


def test_a_budget_holds_across_kill_9(tmp_path: Path) -> None:
    with running(latency_seconds=0.05) as endpoint:
        recipe = write(tmp_path, endpoint, dialogs=40, more="budget: {requests: 60}")
        with start(recipe) as process:
            kill_at(30, endpoint, process)
        code, said, _ = run(recipe)
        assert (code, "budget.requests: 60 of 60 spent" in said["error"]) == (1, True)
        assert len(endpoint.requests) <= 60
