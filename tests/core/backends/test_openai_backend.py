"""The endpoint client: every kind of bad answer is one clear error, and the queue never counts against the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.backends.server import FakeEndpoint, running

from tercet.backends import ChatRequest, Completion, OpenAIBackend
from tercet.backends.answers import Fault, parse_completion, retry_after_seconds, show
from tercet.errors import BackendError, UsageError
from tercet.records import ModelUse

KEY = "sk-secret-0123456789"
REQUEST = ChatRequest(({"role": "user", "content": "hello"},), 16, 0.0, 7)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with running() as served:
        yield served


def ask(endpoint: FakeEndpoint, mode: str, num_requests: int = 1, **settings: Any) -> list[Completion]:
    """Ask at once; one failure fails all."""

    async def run() -> list[Completion]:
        backend = OpenAIBackend(endpoint.url, mode, key=KEY, **{"backoff_seconds": 0.01, **settings})
        try:
            return await asyncio.gather(*[backend.complete(REQUEST) for _ in range(num_requests)])
        finally:
            await backend.aclose()

    return asyncio.run(run())


def test_a_completion_brings_text_tokens_and_terms(endpoint: FakeEndpoint) -> None:
    (completion,) = ask(endpoint, "ok", licence="llama3.2", output_terms="unknown")
    assert (completion.text, completion.finish_reason) == ("hello", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (5, 2)
    assert (completion.model.licence, completion.model.output_terms) == ("llama3.2", "unknown")
    (sent,) = endpoint.requests
    assert (sent["seed"], sent["max_tokens"], sent["temperature"], "stop" in sent) == (7, 16, 0.0, False)
    assert endpoint.keys == [f"Bearer {KEY}"]


FINAL = [
    ("400", "HTTP 400: .*max_tokens is too large", False, 1),
    ("401", "HTTP 401: .*key_env", False, 1),
    ("404", "HTTP 404: .*ends in /v1", False, 1),
    ("redirect", "HTTP 307", False, 1),
    ("html", "HTML instead of a completion: <html>.*check the url", True, 1),
    ("bad-json", "invalid JSON instead", True, 1),
    ("deep-json", "invalid JSON instead", True, 1),
    ("nan", "invalid JSON instead", True, 1),
    ("empty", "an empty completion", True, 1),
    ("null", "an empty completion", True, 1),
    ("no-choices", "no choices", True, 1),
    ("not-an-object", "no choices", True, 1),
    ("bad-usage", "usage.prompt_tokens is no count", True, 1),
    ("huge", "more than 8 MiB", True, 1),
    ("500", "HTTP 500: internal error .3 attempts.", True, 3),
    ("502", "HTTP 502", True, 3),
    ("503", "HTTP 503", True, 3),
    ("504", "HTTP 504", True, 3),
    ("hang", "no whole answer within 0.2 s .3 attempts.; raise timeout_seconds", True, 3),
    ("hang-body", "no whole answer within 0.2 s", True, 3),
    ("reset", "ServerDisconnectedError|ConnectionResetError|ClientOSError", True, 3),
    ("429-hour", "HTTP 429: slow down; lower the concurrency", True, 1),
]


@pytest.mark.parametrize(("mode", "said", "retryable", "attempts"), FINAL, ids=[row[0] for row in FINAL])
def test_a_bad_answer_is_one_error_with_place_find_and_fix(
    endpoint: FakeEndpoint, mode: str, said: str, retryable: Any, attempts: int
) -> None:
    timeout = 0.2 if mode.startswith("hang") else 5.0
    with pytest.raises(BackendError, match=said) as caught:
        ask(endpoint, mode, max_attempts=3, timeout_seconds=timeout)
    message = str(caught.value)
    assert message.startswith(f"{endpoint.url}/chat/completions: ")
    assert "; " in message
    assert len(message) < 600
    assert KEY not in message + repr(caught.value)
    assert caught.value.retryable is retryable
    assert endpoint.counts[mode] == attempts


@pytest.mark.parametrize("mode", ["500*2", "503*1", "reset*2", "hang*1"])
def test_a_passing_fault_is_outlived(endpoint: FakeEndpoint, mode: str) -> None:
    (completion,) = ask(endpoint, mode, max_attempts=3, timeout_seconds=0.5)
    assert completion.text == "hello"


@pytest.mark.parametrize("mode", ["429*1", "429-date*1"])
def test_retry_after_holds_back_every_request(endpoint: FakeEndpoint, mode: str) -> None:
    assert len(ask(endpoint, mode, num_requests=4, concurrency=1)) == 4
    first, *others = endpoint.times
    # one was refused; none of the four came before the second that Retry-After asked for (a date is cut to seconds)
    assert len(others) == 4
    assert min(others) - first >= 0.95


def test_an_endpoint_that_is_not_there_is_one_clear_error() -> None:
    with running() as gone:
        pass
    with pytest.raises(BackendError, match="ClientConnectorError: .*check that the endpoint runs") as caught:
        ask(gone, "ok", max_attempts=2)
    assert caught.value.retryable


def test_waiting_for_a_slot_never_counts_against_the_time_out() -> None:
    with running(latency_seconds=0.15) as endpoint:
        # the last of 8 waits 1.05 s for its slot, five times the time-out
        assert len(ask(endpoint, "ok", num_requests=8, concurrency=1, timeout_seconds=0.5, max_attempts=1)) == 8
        assert endpoint.most_open == 1


def test_requests_run_together_up_to_the_limit() -> None:
    with running(latency_seconds=0.2) as endpoint:
        began = time.perf_counter()
        ask(endpoint, "ok", num_requests=32, concurrency=16)
        assert time.perf_counter() - began < 1.5  # two rounds of 0.2 s; one at a time would take 6.4 s
        assert endpoint.most_open == 16


def test_the_key_comes_from_the_named_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", KEY)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UsageError, match="MY_KEY isn't set; run: export MY_KEY="):
        OpenAIBackend("http://localhost/v1", "m", key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    backend = OpenAIBackend("http://localhost/v1?token=hidden", "m", key_env="MY_KEY")
    assert KEY not in repr(backend)
    assert "hidden" not in backend.place


@pytest.mark.parametrize(
    ("url", "said"),
    [("localhost:8000", "not an http"), ("ftp://x/v1", "not an http"), ("", "not an http"),
     ("http://me:pass@host/v1", "holds credentials")],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_showing_secrets(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        OpenAIBackend(url, "m")
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1/", "http://h:1/v1/chat/completions"])
def test_a_base_address_is_completed(url: str) -> None:
    assert OpenAIBackend(url, "m").place == "http://h:1/v1/chat/completions"


def test_a_temperature_that_is_no_number_is_refused(endpoint: FakeEndpoint) -> None:
    async def run() -> None:
        await OpenAIBackend(endpoint.url, "ok").complete(ChatRequest((), 1, float("nan")))

    with pytest.raises(BackendError, match="temperature nan"):
        asyncio.run(run())


def test_retry_after_is_read_as_seconds_or_date_and_rubbish_is_ignored() -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert retry_after_seconds("7") == 7.0
    assert retry_after_seconds(format_datetime(later, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    for rubbish in ("", "soon", "-3", "1.5e99", "\u0663"):
        assert retry_after_seconds(rubbish) is None


def test_an_echoed_key_is_struck_out_even_at_the_cut() -> None:
    shown = show(b"x" * 195 + KEY.encode(), KEY)
    assert "sk-s" not in shown
    assert len(shown) <= 203


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"]), inner, max_size=4
    ),
    max_leaves=12,
).map(lambda value: __import__("json").dumps(value).encode()))  # fmt: skip
def test_any_answer_is_a_completion_or_a_named_fault(raw: bytes) -> None:
    try:
        completion = parse_completion(raw, KEY, ModelUse("m", "d", "l", "free"))
    except Fault as fault:
        assert fault.found  # noqa: PT017 - the message is what is tested
        return
    assert completion.text.strip()
