"""Dialogs with a language model in the assistant's part: in this process, or behind an OpenAI-compatible endpoint.

Each answer is kept in the journal before the next question is asked, so a killed run asks nothing twice but what was
in flight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from tercet.backends import ChatRequest, Completion, OpenAIBackend, TransformersBackend
from tercet.errors import BackendError, UsageError
from tercet.modality import Needs, Resources
from tercet.records import Failure, Item, Made, ModelUse
from tercet_text.conversation import STAGE, Answer, Ask, Director, estimate_tokens, pack, unpack
from tercet_text.recipe import Endpoint, Llm, TextRecipe
from tercet_text.script import Cast


class Backend(Protocol):
    """A model that answers in this process."""

    @property
    def model(self) -> ModelUse:
        """What answers."""

    def complete(self, request: ChatRequest) -> Completion:
        """Answer one request."""


class AsyncBackend(Protocol):
    """A model that answers from elsewhere."""

    @property
    def model(self) -> ModelUse:
        """What answers."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request."""

    async def aclose(self) -> None:
        """Close connections."""


class LlmDialogs:
    """Asks a model in the worker's own process, one answer after the other."""

    needs: ClassVar[Needs] = Needs(memory_gib=2.0, model=True)
    batch_size: ClassVar[int] = 4

    def __init__(self, section: TextRecipe, resources: Resources, backend: Backend | None = None) -> None:
        settings = section.llm or Llm(dialogs=0)
        self._backend = backend or TransformersBackend(settings.model, resources.cores, resources.examples_root)
        self._answers = resources.answers
        self._director = Director(Cast(section), settings, resources, self._backend.model.digest)

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Make one dialog per item."""
        for item in items:
            yield self._make(item)

    def _make(self, item: Item) -> Made | Failure:
        conversation = self._director.conversation(item)
        try:
            ask = next(conversation)
            while True:
                ask = conversation.send(self._answer(ask))
        except StopIteration as end:
            made: Made | Failure = end.value
            return made
        except BackendError as error:
            return Failure(STAGE, "BackendError", str(error), error.retryable)

    def _answer(self, ask: Ask) -> Answer:
        if (kept := self._answers.recall(ask.key)) is not None:
            return Answer(unpack(kept), is_fresh=False)
        booked = estimate_tokens(ask.request)
        self._answers.reserve(requests=1, tokens=booked)
        completion = self._backend.complete(ask.request)
        self._answers.keep(ask.key, pack(completion), tokens=_spent(completion) - booked)
        return Answer(completion, is_fresh=True)


class EndpointDialogs:
    """Asks an endpoint, many dialogs at once; within a dialog each answer waits for the one before."""

    keeps_answers: ClassVar[bool] = True

    def __init__(self, section: TextRecipe, resources: Resources, backend: AsyncBackend | None = None) -> None:
        if section.endpoint is None:
            raise UsageError("modalities.text.endpoint: missing; add url, model and dialogs")
        self._settings = section.endpoint
        self.concurrency = self._settings.concurrency
        self._backend = backend or _connect(self._settings)
        self._answers = resources.answers
        self._director = Director(Cast(section), self._settings, resources, self._backend.model.digest)

    async def make(self, item: Item) -> Made | Failure:
        """Make one dialog."""
        conversation = self._director.conversation(item)
        try:
            ask = next(conversation)
            while True:
                ask = conversation.send(await self._answer(ask))
        except StopIteration as end:
            made: Made | Failure = end.value
            return made
        except BackendError as error:
            return Failure(STAGE, "BackendError", str(error), error.retryable)

    async def aclose(self) -> None:
        """Close connections."""
        await self._backend.aclose()

    async def _answer(self, ask: Ask) -> Answer:
        if (kept := self._answers.recall(ask.key)) is not None:
            return Answer(unpack(kept), is_fresh=False)
        booked = estimate_tokens(ask.request)
        await self._answers.reserve_async(requests=1, tokens=booked)
        completion = await self._backend.complete(ask.request)
        tokens, money = _spent(completion) - booked, self._price(completion)
        await self._answers.keep_async(ask.key, pack(completion), tokens=tokens, money=money)
        return Answer(completion, is_fresh=True)

    def _price(self, completion: Completion) -> float:
        prompt = completion.prompt_tokens * self._settings.price_per_1k_prompt_tokens
        return (prompt + completion.completion_tokens * self._settings.price_per_1k_completion_tokens) / 1000


def _spent(completion: Completion) -> int:
    return completion.prompt_tokens + completion.completion_tokens


def _connect(settings: Endpoint) -> AsyncBackend:
    return OpenAIBackend(
        settings.url,
        settings.model,
        key_env=settings.key_env or "",
        concurrency=settings.concurrency,
        timeout_seconds=settings.timeout_seconds,
        max_attempts=settings.max_attempts,
        licence=settings.licence,
        output_terms=settings.output_terms,
    )
