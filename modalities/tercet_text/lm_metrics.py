"""How an answer is judged: the calls it made, what it reported of their results, and what it said."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.randomness import canonical_json
from tercet_text.calls import Call, CallError, read_calls, schema_fault
from tercet_text.causal_lm_chat import OPEN
from tercet_text.general import normal

TASK_FAILURES = "task failures"
CALL_ERRORS = "tool-call errors"
SPURIOUS = "spurious calls"
VALID_CALLS = "valid calls"
REPLY_ERRORS = "reply errors"
GENERAL_ERRORS = "general errors"


@dataclass(frozen=True)
class Turn:
    """What an assistant did after a user's message: its calls, their results, and its last words."""

    calls: tuple[Call, ...]
    results: tuple[str, ...]
    reply: str
    is_unreadable: bool  # it tried a call that is none


def write_turn(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write a turn as JSON: the chat messages from the user's message to the assistant's last one."""
    return canonical_json(list(messages))


def read_turn(text: str) -> Turn:
    """Read a turn; text that is no JSON list is a reply without calls."""
    try:
        messages = json.loads(text)
        calls = [call for message in messages for call in read_calls(message.get("tool_calls"))]
        said = [str(message["content"]) for message in messages if message["role"] == "assistant"]
        results = tuple(str(message["content"]) for message in messages if message["role"] == "tool")
        is_unreadable = any(OPEN in words for words in said)
        is_reported = bool(messages) and not messages[-1].get("tool_calls") and messages[-1]["role"] == "assistant"
        return Turn(tuple(calls), results, said[-1] if is_reported else "", is_unreadable)
    except (ValueError, AttributeError, KeyError, TypeError, CallError):
        return Turn((), (), text, OPEN in text)


def turn_messages(text: str) -> list[dict[str, Any]]:
    """Give a written turn's messages; text that is no turn is one message."""
    try:
        messages = json.loads(text)
    except ValueError:
        messages = None
    if isinstance(messages, list) and messages and all(isinstance(one, dict) and "content" in one for one in messages):
        return messages
    return [{"role": "assistant", "content": text}]


def count_tool_turn(
    wanted: Turn, made: Turn, tools: Sequence[Any], *, asks: bool = False
) -> dict[str, tuple[float, float]]:
    """Count a turn with tools at hand.

    It fails when its calls aren't the wanted ones, when its reply lacks a fact of their results, when it says nothing,
    or when it should ask back (`asks`) and holds no question. Where no call is wanted, any is one too many.
    """
    is_right = made.calls == wanted.calls and not made.is_unreadable
    has_asked = "?" in made.reply or not asks
    has_reported = bool(made.reply) and has_asked and all(holds(made.reply, fact) for fact in facts(wanted))
    counts: dict[str, tuple[float, float]] = {TASK_FAILURES: (float(not (is_right and has_reported)), 1.0)}
    if wanted.calls:
        pairs = zip(wanted.calls, (*made.calls, *[None] * len(wanted.calls)), strict=False)
        counts[CALL_ERRORS] = (float(sum(one != other for one, other in pairs)), float(len(wanted.calls)))
        is_valid = bool(made.calls) and not made.is_unreadable and not schema_fault(made.calls, tools)
        counts[VALID_CALLS] = (float(is_valid), 1.0)
    else:
        counts[SPURIOUS] = (float(bool(made.calls) or made.is_unreadable), 1.0)
    return counts


def facts(turn: Turn) -> list[str]:
    """List the values in a turn's results that its own reply tells."""
    values = (text for result in turn.results for text in _values(_loaded(result)))
    return [text for text in dict.fromkeys(values) if holds(turn.reply, text)]


def holds(reply: str, fact: str) -> bool:
    """Say whether a fact stands in a reply, whatever its case, and not inside a longer word or number."""
    return re.search(rf"(?<![\w.]){re.escape(fact.casefold())}(?!\w|\.\d)", reply.casefold()) is not None


def reply_error(said: str, wanted: str) -> float:
    """Give 1 minus the F1 of the words that a reply shares with the wanted one: 0 is the same words, 1 is none."""
    one, other = (Counter(normal(text).split()) for text in (said, wanted))
    shared = (one & other).total()
    return 1 - 2 * shared / max(1, one.total() + other.total())


def _loaded(result: str) -> Any:
    try:
        return json.loads(result)
    except ValueError:
        return result


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _values(one)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
