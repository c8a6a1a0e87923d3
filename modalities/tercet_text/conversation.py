"""A dialog whose answers a language model gives, as pure steps: it yields what to ask and takes what came back.

The user's lines and the directions come from the scenario's script. Nothing here waits or speaks to anybody, so the
in-process generator and the endpoint share it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tercet.backends import ChatRequest, Completion
from tercet.modality import Resources
from tercet.randomness import answer_key, canonical_json
from tercet.records import Failure, Item, Made, ModelUse
from tercet_text.completion import UnusableError, clean, refuse_leak
from tercet_text.dialog import payload_of, system_message
from tercet_text.documents import on_one_line
from tercet_text.faithful import refuse_unfaithful, share_kept
from tercet_text.recipe import Endpoint, Llm
from tercet_text.rewording import Piece, piece_for
from tercet_text.script import Cast, Exchange, Script

STAGE = "generate"
CITED_SHARE = 0.5  # of a quote's longer words that an answer must hold to count as resting on it
MIN_DRAFT_CHARACTERS = 40  # a greeting or good-bye has nothing to reword
# SmolLM2 was taught rewriting under prompts like this one; asked freely, 135M parameters make things up
REWORD = (
    "You're an AI assistant for text re-writing. Rewrite the input text to make it more concise while preserving its core "  # noqa: E501 - the words it was tuned on
    "meaning."
)
MAX_RECALLED = 200  # unusable answers kept for one turn before the dialog is given up for good
CHARACTERS_PER_TOKEN = 3  # on the safe side: English has about 4
STOP = ("\nUser:", "\nHuman:")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and the key under which its answer is kept."""

    key: str
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `is_fresh` when it was asked just now and not recalled."""

    completion: Completion
    is_fresh: bool


Conversation = Generator[Ask, Answer, Made | Failure]


class Director:
    """Leads the conversations of one generator."""

    def __init__(self, cast: Cast, settings: Llm | Endpoint, resources: Resources, model_digest: str) -> None:
        self._cast, self._settings, self._resources = cast, settings, resources
        self._model_digest = model_digest

    def conversation(self, item: Item) -> Conversation:
        """Play one item: yield each `Ask`, take its `Answer`, return the dialog or why there is none.

        With `draft`, an answer (or a sentence of it) that the model can't reword faithfully stays as the grammar wrote
        it, and the lineage counts the answers with the model's words and those words' share of the assistant's
        characters; a dialog without any is a failure.
        """
        script = Script(self._cast, item.spec, self._resources.seed_for(item, STAGE))
        spoken: list[Exchange] = []
        model: ModelUse | None = None
        num_model_answers = num_model_characters = 0
        failure = Failure(
            STAGE, "NothingToReword", "every answer of this scenario is too short to reword", retryable=False
        )
        for turn, planned in enumerate(script.exchanges()):
            if self._settings.draft and len(planned.assistant) < MIN_DRAFT_CHARACTERS:
                spoken.append(planned)
                continue
            answered = yield from self._turn(item, turn, planned, spoken)
            if not isinstance(answered, Failure):
                text, num_characters, used = answered
                model = model or used
                num_model_answers += 1
                num_model_characters += num_characters
                spoken.append(Exchange(planned.user, text, planned.direction, _cited(text, planned.quotes)))
            elif self._settings.draft:
                failure = answered
                spoken.append(planned)
            else:
                return answered
        if model is None:
            return failure
        system = system_message(self._cast.section.role) if self._cast.section.system else ""
        parameters = {
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            "draft": self._settings.draft,
            "model_answers": num_model_answers,
            "model_share": round(num_model_characters / sum(len(exchange.assistant) for exchange in spoken), 2),
        }
        return Made(payload_of(item.spec, spoken, system), model, parameters)

    def _turn(
        self, item: Item, turn: int, planned: Exchange, spoken: Sequence[Exchange]
    ) -> Generator[Ask, Answer, tuple[str, int, ModelUse] | Failure]:
        """Ask until an answer is usable; give it with the number of its characters that are the model's.

        An answer kept by an earlier run never counts as an attempt of this one.

        So `--retry-failed` asks anew after the answers that failed, and a resumed run walks the same path again.
        """
        fresh, reason, shown = 0, "", ""
        for attempt in range(MAX_RECALLED):
            piece = piece_for(planned.assistant, attempt) if self._settings.draft else None
            messages = self._messages(item.spec, spoken, planned, piece)
            most = self._settings.max_tokens
            request = ChatRequest(
                messages=messages,
                max_tokens=min(most, piece.max_tokens) if piece else most,
                temperature=self._settings.temperature,
                seed=self._resources.seed_for(item, f"{STAGE} {turn}", attempt),
                stop=STOP,
            )
            key = answer_key(item.key, STAGE, turn, attempt, canonical_request(request), self._model_digest)
            answer = yield Ask(key, request)
            completion = answer.completion
            try:
                text = clean(completion.text, completion.finish_reason)
                refuse_leak(text, messages[0]["content"])
                if piece:
                    refuse_unfaithful(text, piece.text, (item.spec["term"], item.spec["other_term"]))
                return piece.put(text) if piece else text, len(text), completion.model
            except UnusableError as error:
                reason, shown = str(error), completion.text[:60]
            fresh += answer.is_fresh
            if fresh >= self._settings.attempts:
                break
        message = f"answer {turn + 1}: {reason} ({shown!r}), asked {fresh} times; try `run --retry-failed`"
        return Failure(STAGE, "UnusableAnswer", message, retryable=True)

    def _messages(
        self, spec: Mapping[str, Any], spoken: Sequence[Exchange], planned: Exchange, piece: Piece | None
    ) -> tuple[dict[str, str], ...]:
        if piece:
            return ({"role": "system", "content": REWORD}, {"role": "user", "content": piece.text})
        messages = [{"role": "system", "content": self._briefing(spec, planned)}]
        for exchange in spoken:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        return (*messages, {"role": "user", "content": planned.user})

    def _briefing(self, spec: Mapping[str, Any], planned: Exchange) -> str:
        """Say who the assistant is, who asks, what the documents hold, and what this answer should do."""
        persona, mood = self._cast.personas[spec["persona"]], self._cast.moods[spec["mood"]]
        who = ", ".join(filter(None, (persona.describe, mood.describe)))
        lines = [
            f"You are {self._cast.section.role}.",
            f"The user is {who}." if who else "",
            *_material(planned),
            "Answer in one to three plain sentences.",
            "" if spec["language"].startswith("en") else f"Write in the language {spec['language']}.",
        ]
        return "\n".join(filter(None, lines))


def _material(planned: Exchange) -> list[str]:
    excerpts = [f"- {quote['title']}: {on_one_line(quote['quote'])}" for quote in planned.quotes]
    heading = "Excerpts from the documents:" if excerpts else "The documents hold nothing on the user's question."
    return [heading, *excerpts, planned.direction]


def canonical_request(request: ChatRequest) -> dict[str, Any]:
    """Spell a request in JSON values, for its key."""
    return asdict(request)


def _cited(text: str, quotes: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    """Keep the quotes that an answer really uses: half of a quote's longer words stand in it."""
    return tuple(quote for quote in quotes if share_kept(quote["quote"], text) >= CITED_SHARE)


def pack(completion: Completion) -> bytes:
    """Write a completion for the journal."""
    return canonical_json(asdict(completion)).encode()


def unpack(raw: bytes) -> Completion:
    """Read a completion from the journal."""
    fields = json.loads(raw)
    return Completion(**{**fields, "model": ModelUse(**fields["model"])})


def estimate_tokens(request: ChatRequest) -> int:
    """Estimate what a request may cost at most, to book it before it leaves."""
    characters = sum(len(message["content"]) for message in request.messages)
    return characters // CHARACTERS_PER_TOKEN + request.max_tokens
