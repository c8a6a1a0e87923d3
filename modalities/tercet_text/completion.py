"""Clean what a language model wrote for the assistant, or say why it can't be used."""

from __future__ import annotations

import re
from collections import Counter

from tercet_text.documents import words

ROLE = r"(?:user|human|assistant|system|customer|agent)"
LEADING_ROLE = re.compile(r"^\s*(?:\**\s*)?(?:assistant|agent)\s*\**\s*:\s*\**\s*", re.IGNORECASE)
NEXT_ROLE = re.compile(rf"(?:^|\n|(?<=[.!?])\s)\s*\**\s*{ROLE}\s*\**\s*:(?=\s|\*|$).*", re.IGNORECASE | re.DOTALL)
SPECIAL_TOKEN = re.compile(r"<\|[a-z_]+\|>.*|</?s>.*|\[/?INST\].*", re.DOTALL)
LAST_SENTENCE = re.compile(r"^.*[.!?…][\"'”’)\]*]*(?=\s|$)", re.DOTALL)
ENDS_WHOLE = re.compile(r"[.!?…:][\"'”’)\]*]*$")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
LOOP_WORDS, LOOP_TIMES = 4, 4  # the same 4 words 4 times in one answer: a model that has lost the thread
MIN_CHARACTERS = 2
TASK_OPENINGS = ("You are", "The user is", "Say this in", "Answer in", "Excerpts from", "The documents hold nothing")
LEAK_CHARACTERS = 24  # the beginning of an instruction is enough to know it by


class UnusableError(ValueError):
    """A completion that can't stand as an answer; the text is a short reason that groups well."""


def clean(text: str, finish_reason: str) -> str:
    """Give the answer in a completion.

    Cut: special tokens and what follows them, the turn of another role that the model went on to write, a sentence
    broken off by the token limit.

    Raises:
        UnusableError: nothing is left, or the text goes round in a loop.
    """
    if not text.strip():
        raise UnusableError("empty completion")
    text = SPECIAL_TOKEN.sub("", text)
    text = LEADING_ROLE.sub("", text)
    text = NEXT_ROLE.sub("", text)
    text = CONTROL.sub("", text).strip()
    if len(text) < MIN_CHARACTERS:
        raise UnusableError("no answer before the next role")
    if _loops(text):
        raise UnusableError("repeated loop")
    if finish_reason == "length" or not ENDS_WHOLE.search(text):
        text = _to_last_sentence(text, was_cut=finish_reason == "length")
    return text


def _to_last_sentence(text: str, *, was_cut: bool) -> str:
    """Drop an unfinished last sentence; a text that merely lacks its full stop stays."""
    whole = LAST_SENTENCE.match(text)
    if whole:
        return whole.group().strip()
    if was_cut:
        raise UnusableError("cut off in its first sentence")
    return text


def _loops(text: str) -> bool:
    found = words(text)
    runs = Counter(tuple(found[at : at + LOOP_WORDS]) for at in range(len(found) - LOOP_WORDS + 1))
    return bool(runs) and max(runs.values()) >= LOOP_TIMES


def refuse_leak(text: str, briefing: str) -> None:
    """Refuse an answer that recites its instructions instead of following them.

    Raises:
        UnusableError: the answer names the user as a third person, or holds a line of the briefing that speaks of the
            assistant's task ("You are ...", "Answer in ...").
    """
    folded = text.casefold()
    task = [line.casefold() for line in briefing.splitlines() if line.startswith(TASK_OPENINGS)]
    if "the user is" in folded or any(line[:LEAK_CHARACTERS] in folded for line in task):
        raise UnusableError("recites its instructions")
