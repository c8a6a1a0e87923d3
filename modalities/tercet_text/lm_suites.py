"""The frozen sets of the task `causal-lm`: held-out dialogs, cut at each user's message, and general questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.randomness import canonical_json
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.store.shards import read_records
from tercet.train.task import Example, Suite, own_general
from tercet_text.calls import chat_messages
from tercet_text.general import Question, judging, read_own
from tercet_text.lm_metrics import write_turn

PHRASES = "in phrases and about values never trained on"  # held out where dialogs have tools
CELLS = "of an intent, a persona and a mood never trained on together"  # held out where they have none
GENERAL = "general questions with short answers"
TOPIC = "topic"  # the slice that only general questions have
CALLS, ASKS, SAYS = "calls", "asks back", "says"  # the slice "turn" of a dialog with tools
LEAST_TOKENS, MOST_TOKENS = 96, 512  # of an answer
BYTES_PER_TOKEN = 2  # of an answer's room: English has 4 to a token, so twice the longest reference finds room
MOST_GENERAL_TOKENS = 32


def read_suites(recipe: Recipe, run_dir: Path) -> list[Suite]:
    """Read the run's held-out dialogs, general questions, and the file that `evaluate.general` names."""
    held_out = list(read_records(run_dir, "text", "held_out"))
    suites = [Suite("held_out", "primary", _title(held_out), list(dialog_examples(held_out)))]
    if recipe.sections.language.startswith("en"):
        suites.append(Suite("general", "general", GENERAL, general_examples(judging())))
    if path := own_general(recipe, "text"):
        suites.append(Suite(f"your {path.stem}", "general", "your general questions", general_examples(read_own(path))))
    return suites


def _title(held_out: Sequence[Record]) -> str:
    """Say what of the held-out questions is new to a trained model."""
    has_phrases = {bool(_asked(record)) for record in held_out}
    kinds = [PHRASES] * (True in has_phrases) + [CELLS] * (False in has_phrases)
    return f"questions {', or '.join(kinds)}"


def dialog_examples(records: Iterable[Record]) -> Iterator[Example]:
    """Cut each dialog at each user's message; what the assistant did next is the reference.

    All have the same room for an answer, by the longest of them: an answer that is cut is a wrong one.
    """
    held = [(record, chat_messages(record.payload["messages"])) for record in records]
    most_tokens = _room(message for _, messages in held for message in messages)
    for record, messages in held:
        asked = [at for at, message in enumerate(messages) if message["role"] == "user"]
        phrases = _asked(record) or [_words(messages, asked)] * len(asked)
        for at, following, phrase in zip(asked, [*asked[1:], len(messages)], phrases, strict=True):
            if at + 1 < following:
                yield _example(record, messages, at, following, phrase, most_tokens)


def _room(messages: Iterable[Mapping[str, Any]]) -> int:
    """Give the most tokens of an answer, by the longest that the assistant gives in one message."""
    said = (message for message in messages if message["role"] == "assistant")
    texts = (f"{message['content']}{canonical_json(message.get('tool_calls', []))}" for message in said)
    longest = max((len(text.encode()) for text in texts), default=0)
    return min(MOST_TOKENS, max(LEAST_TOKENS, longest // BYTES_PER_TOKEN))


def first_phrase(record: Record) -> str:
    """Name what a dialog shares with others that begin in the same phrase; without a phrase, the dialog alone."""
    return (_asked(record) or [record.id])[0]


def _asked(record: Record) -> list[str]:
    """List the phrases behind the user's messages; empty for a dialog that wasn't made of phrases."""
    found: list[str] = record.lineage.get("parameters", {}).get("asked") or []
    return found


def _example(
    record: Record, messages: Sequence[Mapping[str, Any]], at: int, following: int, source: str, most_tokens: int
) -> Example:
    payload, tools = record.payload, tools_of(record)
    turn = messages[at + 1 : following]
    environment = record.lineage.get("parameters", {}).get("environment")
    content = {
        "messages": list(messages[: at + 1]), "tools": tools, "environment": environment, "most_tokens": most_tokens,
    }  # fmt: skip
    calls = any(message.get("tool_calls") for message in turn)
    asks = not calls and following < len(messages) and "?" in turn[-1]["content"]
    does = CALLS if calls else ASKS if asks else SAYS
    slices = {
        "turn": does if tools else "",
        "about": payload["intent"],
        "kind": payload["edge_case"],
        "persona": payload["persona"],
    }
    reference = write_turn(turn) if tools else str(turn[-1]["content"])
    return Example(
        f"{record.id}/{at}", source, reference, content,
        {name: value for name, value in slices.items() if value},
    )  # fmt: skip


def _words(messages: Sequence[Mapping[str, Any]], asked: Sequence[int]) -> str:
    """Name what a dialog's turns depend on each other by, where no phrase is known: how it begins, without values.

    Dialogs that begin alike depend on each other, too.
    """
    calls = [one["function"] for message in messages for one in message.get("tool_calls") or ()]
    text = str(messages[asked[0]]["content"]).casefold() if asked else ""
    values = {str(value).casefold(): name for call in calls for name, value in call["arguments"].items()}
    for value in sorted(filter(None, values), key=len, reverse=True):  # 3 packs may stand inside an order's number
        text = text.replace(value, f"<{values[value]}>")
    return text


def tools_of(record: Record) -> list[Any]:
    """Read the tools that a dialog declares."""
    found = json.loads(record.payload["tools"] or "[]")
    return found if isinstance(found, list) else []


def general_examples(questions: Iterable[Question]) -> list[Example]:
    """Turn questions into examples; the reference holds every right answer."""
    return [
        Example(
            f"general/{question.text}", question.text, "|".join(question.answers),
            {
                "messages": [{"role": "user", "content": question.text}],
                "tools": [], "environment": None, "most_tokens": MOST_GENERAL_TOKENS,
            },
            {TOPIC: question.topic},
        )
        for question in questions
    ]  # fmt: skip
