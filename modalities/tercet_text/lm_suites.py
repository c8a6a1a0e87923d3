"""The frozen sets of the task `causal-lm`: held-out dialogs, cut at each user's message, and general questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.recipe import Recipe
from tercet.records import Record
from tercet.store.shards import read_records
from tercet.train.task import Example, Suite, own_general
from tercet_text.calls import chat_messages
from tercet_text.general import Question, judging, read_own
from tercet_text.lm_metrics import write_turn

HELD_OUT = "questions in phrases and about values never trained on"
GENERAL = "general questions with short answers"
TOPIC = "topic"  # the slice that only general questions have
CALLS, ASKS, SAYS = "calls", "asks back", "says"  # the slice "turn" of a dialog with tools
MOST_TOKENS = 96
MOST_GENERAL_TOKENS = 32


def read_suites(recipe: Recipe, run_dir: Path) -> list[Suite]:
    """Read the run's held-out dialogs, general questions, and the file that `evaluate.general` names."""
    held_out = dialog_examples(read_records(run_dir, "text", "held_out"))
    suites = [Suite("held_out", "primary", HELD_OUT, list(held_out))]
    if recipe.sections.language.startswith("en"):
        suites.append(Suite("general", "general", GENERAL, general_examples(judging())))
    if path := own_general(recipe, "text"):
        suites.append(Suite(f"your {path.stem}", "general", "your general questions", general_examples(read_own(path))))
    return suites


def dialog_examples(records: Iterable[Record]) -> Iterator[Example]:
    """Cut each dialog at each user's message; what the assistant did next is the reference."""
    for record in records:
        messages = chat_messages(record.payload["messages"])
        asked = [at for at, message in enumerate(messages) if message["role"] == "user"]
        phrases = record.lineage.get("parameters", {}).get("asked") or [""] * len(asked)
        for at, following, phrase in zip(asked, [*asked[1:], len(messages)], phrases, strict=True):
            if at + 1 < following:
                yield _example(record, messages, at, following, phrase)


def _example(record: Record, messages: Sequence[Mapping[str, Any]], at: int, following: int, phrase: str) -> Example:
    payload, tools = record.payload, tools_of(record)
    turn = messages[at + 1 : following]
    environment = record.lineage.get("parameters", {}).get("environment")
    content = {
        "messages": list(messages[: at + 1]), "tools": tools, "environment": environment, "most_tokens": MOST_TOKENS,
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
        f"{record.id}/{at}", phrase or _source(messages[at]["content"], turn), reference, content,
        {name: value for name, value in slices.items() if value},
    )  # fmt: skip


def _source(said: str, turn: Sequence[Mapping[str, Any]]) -> str:
    """Name what two examples depend on each other by, where no phrase is known: the words without the call's values."""
    calls = [one["function"] for message in turn for one in message.get("tool_calls") or ()]
    text = said.casefold()
    values = {str(value).casefold(): name for call in calls for name, value in call["arguments"].items()}
    for value in sorted(values, key=len, reverse=True):  # 3 packs may stand inside an order's number
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
