"""A phrase grammar: `[hello|good morning|]` chooses one, `<term>` inserts a slot or rule, a backslash escapes.

A slot's value goes in as it is and is never read as a phrase, so that a term such as `<script>` or `[x|y]` stays
what it is. Phrases hold no code: a recipe may carry its own.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, Union

MAX_DEPTH = 12  # of nested choices, and of rules that insert rules
TOKEN = re.compile(r"\\(.)|([\[\]|])|<([a-z_]+)>|([^\\\[\]|<]+|<)", re.DOTALL)


class PhraseError(ValueError):
    """A phrase can't be read; says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several ways to go on."""

    options: tuple[Phrase, ...]


Phrase = tuple[Union[str, Slot, "Choice"], ...]
Rules = Mapping[str, tuple[str, ...]]
Picked = TypeVar("Picked")


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of an expanded phrase; `is_given` text came from a slot and must stay as it is."""

    text: str
    is_given: bool


@functools.lru_cache(maxsize=4096)
def parse(source: str) -> Phrase:
    """Read a phrase.

    Raises:
        PhraseError: a bracket is open or never opened, or choices nest deeper than `MAX_DEPTH`.
    """
    stack: list[list[list[str | Slot | Choice]]] = [[[]]]
    for token in TOKEN.finditer(source):
        escaped, mark, slot, text = token.groups()
        if mark == "[":
            if len(stack) > MAX_DEPTH:
                raise PhraseError(f"phrase {source!r}: choices nest deeper than {MAX_DEPTH}; make it flatter")
            stack.append([[]])
        elif mark == "]":
            if len(stack) == 1:
                raise PhraseError(f"phrase {source!r}: ']' at {token.start()} closes nothing; write \\] for a bracket")
            options = stack.pop()
            stack[-1][-1].append(Choice(tuple(tuple(option) for option in options)))
        elif mark == "|":
            if len(stack) == 1:
                raise PhraseError(f"phrase {source!r}: '|' at {token.start()} stands outside [...]; write \\| instead")
            stack[-1].append([])
        else:
            stack[-1][-1].append(Slot(slot) if slot else escaped or text)
    if len(stack) > 1:
        raise PhraseError(f"phrase {source!r}: '[' is never closed; write \\[ for a bracket")
    return tuple(stack[0][0])


def slots(phrase: Phrase) -> Iterator[str]:
    """Yield the name of every slot in a phrase."""
    for node in phrase:
        if isinstance(node, Slot):
            yield node.name
        elif isinstance(node, Choice):
            for option in node.options:
                yield from slots(option)


def certain_slots(phrase: Phrase) -> set[str]:
    """Collect the slots that stand in the phrase whatever is chosen."""
    certain: set[str] = set()
    for node in phrase:
        if isinstance(node, Slot):
            certain.add(node.name)
        elif isinstance(node, Choice):
            certain |= set.intersection(*map(certain_slots, node.options))
    return certain


def expand(
    source: str, rng: random.Random, values: Mapping[str, str], rules: Rules, depth: int = 0
) -> Iterator[Fragment]:
    """Write a phrase out, piece by piece.

    Raises:
        PhraseError: a slot has neither a value nor a rule.
    """
    yield from _expand(parse(source), rng, values, rules, depth)


def _expand(
    phrase: Phrase, rng: random.Random, values: Mapping[str, str], rules: Rules, depth: int
) -> Iterator[Fragment]:
    for node in phrase:
        if isinstance(node, str):
            yield Fragment(node, False)
        elif isinstance(node, Choice):
            yield from _expand(pick(rng, node.options), rng, values, rules, depth)
        elif node.name in values:
            yield Fragment(values[node.name], True)
        elif node.name in rules and depth < MAX_DEPTH:
            yield from expand(pick(rng, rules[node.name]), rng, values, rules, depth + 1)
        else:
            raise PhraseError(f"<{node.name}> has no value here; known: {', '.join(sorted({*values, *rules}))}")


def pick(rng: random.Random, options: Sequence[Picked]) -> Picked:
    """Choose one option; a third of the cost of `Random.choice`."""
    return options[int(rng.random() * len(options))]
