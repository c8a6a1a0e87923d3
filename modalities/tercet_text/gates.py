"""The gates of a dialog. Each says what is wrong in a few words that group well; details stay out of the reason."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tercet.modality import Needs, Resources
from tercet.records import Candidate, Columns, Verdict
from tercet_text.calls import CallError, calls_of, order_fault, plan_fault, schema_fault
from tercet_text.documents import words
from tercet_text.near_duplicates import NearDuplicates
from tercet_text.recipe import RepetitionGate, SchemaGate

__all__ = ["NearDuplicates", "Repetition", "Schema"]

# {name}, {{ name }} and the slots of our own phrases: what a template leaves behind when a value is missing
LEFTOVER = re.compile(r"\{\{?\s*[A-Za-z_][\w.]*\s*\}?\}|<(?:term|other_term|expert|expert_cap|quote|title|aspect)>")
WHITESPACE = frozenset("\n\t")
SENTENCE = re.compile(r"[.!?]+\s+|\n+")
NGRAM_WORDS = 4
MIN_WORDS_TO_JUDGE = 20  # below, shares jump with every word


class Schema:
    """Rejects a dialog that a chat template can't take, or whose citations the documents don't hold.

    In order: roles (a system message at most once and first; user and assistant alternate, user first, assistant
    last; each call is followed by its result, and results by the assistant), empty or over-long content, control
    characters, leftover template slots (the user's own terms and quotes aside, and never in the user's own examples),
    tools that aren't a JSON list, calls that break the declared tools' schemas, citations that aren't among the
    quotes which the plan took from the documents, calls that aren't the plan's, and results that executing them
    doesn't give.
    """

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 512

    def __init__(self, section: SchemaGate, resources: Resources) -> None:  # noqa: ARG002
        self._section = section

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Give one verdict per dialog."""
        return [self._judge(candidate) for candidate in batch]

    def _judge(self, candidate: Candidate) -> Verdict:
        reason = next(self._faults(candidate), "")
        return Verdict("schema", passed=not reason, reason=reason)

    def _faults(self, candidate: Candidate) -> Iterator[str]:
        messages: Sequence[Mapping[str, str]] = candidate.payload["messages"]
        try:
            calls = [call for message in messages for call in calls_of(message)]
        except CallError:
            yield "tool calls are no JSON list of calls"
            return
        yield from self._role_faults(messages)
        for message in messages:
            yield from self._content_faults(message)
        item, tools = candidate.item, _json_list(candidate.payload["tools"])
        if item.generator != "examples":
            given = list(_given(item.spec))
            if any(_has_leftover(message["content"], given) for message in messages):
                yield "template leftover"
            if not _are_cited_from(candidate.payload, item.spec):
                yield "citation not in the documents"
        if tools is None:
            yield "tools are no JSON list"
        elif fault := schema_fault(calls, tools):
            yield fault
        if item.generator == "tools" and (fault := plan_fault(messages, item.spec)):
            yield fault

    def _role_faults(self, messages: Sequence[Mapping[str, str]]) -> Iterator[str]:
        if len(messages) > self._section.max_messages:
            yield "too many messages"
        spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
        if not spoken:
            yield "no messages"
        if any(message["role"] not in ("user", "assistant", "tool") for message in spoken):
            yield "role out of place"
        if fault := order_fault(spoken):
            yield fault

    def _content_faults(self, message: Mapping[str, str]) -> Iterator[str]:
        content = message["content"]
        if not content.strip() and not message.get("tool_calls"):
            yield "empty message"
        if len(content) > self._section.max_message_characters:
            yield "message too long"
        if any(unicodedata.category(char) in ("Cc", "Cs") and char not in WHITESPACE for char in content):
            yield "control character"


def _given(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a scenario that come from the user."""
    yield from (spec.get("term", ""), spec.get("other_term", ""))
    for exchange in spec.get("exchanges", ()):
        yield from map(str, {**exchange.get("arguments", {}), **exchange.get("values", {})}.values())
    for quote in planned_quotes(spec):
        yield from (quote["quote"], quote["title"], quote["document"])


def planned_quotes(spec: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Yield every quote that the plan took from the documents for this scenario."""
    for ask in (*spec.get("asks", ()), spec.get("detour", {})):
        yield from ask.get("quotes", ())


def _has_leftover(content: str, given: Sequence[str]) -> bool:
    """Look for leftovers; where the user's own terms look like one, even misspelt, nothing can be told."""
    return bool(LEFTOVER.search(content)) and not any(LEFTOVER.search(text) for text in given)


def _are_cited_from(payload: Columns, spec: Mapping[str, Any]) -> bool:
    known = {(quote["document"], quote["quote"]) for quote in planned_quotes(spec)}
    return all((citation["document"], citation["quote"]) in known for citation in payload["citations"])


def _json_list(text: str) -> list[Any] | None:
    try:
        read = json.loads(text)
    except ValueError:
        return None
    return read if isinstance(read, list) else None


class Repetition:
    """Rejects a dialog that goes round in circles.

    Three shares, after the repetition filters of Rae et al. 2021 ("Scaling Language Models", appendix A): repeated
    4-word sequences at most 0.35, repeated sentences at most 0.34, different words at least 0.25. Of 20,000 of the
    grammar's dialogs the worst came to 0.29, 0.21 and 0.41; of 12 exchanges each, to 0.25, 0.18 and 0.35.
    A dialog under 20 words is judged by its sentences alone.
    """

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 512

    def __init__(self, section: RepetitionGate, resources: Resources) -> None:  # noqa: ARG002
        self._section = section

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Give one verdict per dialog."""
        return [self._judge(candidate.payload["messages"]) for candidate in batch]

    def _judge(self, messages: Sequence[Mapping[str, str]]) -> Verdict:
        said = [message["content"].casefold() for message in messages if message["role"] in ("user", "assistant")]
        sentences = [piece.strip(" .!?") for text in said for piece in SENTENCE.split(text) if len(words(piece)) > 2]
        limit = self._section.max_repeated_sentences
        if (share := repeated_share(sentences)) > limit:
            return Verdict("repetition", False, share, limit, "repeated sentences")
        spoken = [words(text) for text in said]
        ngrams = [tuple(text[at : at + NGRAM_WORDS]) for text in spoken for at in range(len(text) - NGRAM_WORDS + 1)]
        num_words = sum(map(len, spoken))
        share, limit = repeated_share(ngrams), self._section.max_repeated_ngrams
        if num_words >= MIN_WORDS_TO_JUDGE and share > limit:
            return Verdict("repetition", False, share, limit, "repeated word sequences")
        unique = len({word for text in spoken for word in text}) / num_words if num_words else 1.0
        if num_words >= MIN_WORDS_TO_JUDGE and unique < self._section.min_unique_words:
            return Verdict("repetition", False, unique, self._section.min_unique_words, "few different words")
        return Verdict("repetition", True, share, limit)


def repeated_share(things: Sequence[Any]) -> float:
    """Give the share of things that came before; 0 for none."""
    return 1 - len(set(things)) / len(things) if things else 0.0
