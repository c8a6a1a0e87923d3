"""Turn phrases into sentences: the user's in their register, the assistant's plain. Slots keep their exact text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from tercet_text.phrases import Fragment, Rules, expand, pick

ARTICLES = re.compile(r"\b(?:the|an?) (?=\w)", re.IGNORECASE)
SPACES = re.compile(r" {2,}")
TYPED_SHORT = (("please", "pls"), ("because", "cos"), ("thank you", "thx"), ("tomorrow", "tmrw"))
SWAPS = ("drop", "double", "swap")


def write(rng: random.Random, sources: Sequence[str], values: Mapping[str, str], rules: Rules) -> list[Fragment]:
    """Write out one of the phrases."""
    return list(expand(pick(rng, sources), rng, values, rules))


def join(parts: Iterable[Fragment]) -> str:
    """Put fragments together into sentences that begin with a capital; given text is left as it is."""
    pieces: list[str] = []
    starts = True
    for part in parts:
        text = part.text
        if not text:
            continue
        if not part.is_given and starts and text.strip():
            stripped = text.lstrip()
            text = text[: len(text) - len(stripped)] + stripped[0].upper() + stripped[1:]
        pieces.append(text)
        if text.strip():
            starts = text.rstrip().endswith((".", "!", "?")) and not part.is_given
    return SPACES.sub(" ", "".join(pieces)).strip()


def in_register(rng: random.Random, register: str, parts: list[Fragment]) -> str:
    """Say the fragments as a user of this register would."""
    if register == "casual":
        shorten = rng.random() < 0.5
        return _casual([part if part.is_given else Fragment(_typed(part.text, shorten), False) for part in parts])
    if register == "learner":
        parts = [part if part.is_given else Fragment(ARTICLES.sub("", part.text), False) for part in parts]
    return join(parts)


def _typed(text: str, shorten: bool) -> str:  # noqa: FBT001 - one of two ways to type
    text = text.lower()
    if shorten:
        for long, short in TYPED_SHORT:
            text = text.replace(long, short)
    return text


def _casual(parts: list[Fragment]) -> str:
    text = SPACES.sub(" ", "".join(part.text for part in parts)).strip()
    return text[:-1] if text.endswith(".") and not parts[-1].is_given else text


def misspell(rng: random.Random, term: str) -> str:
    """Misspell a term as a hurried typist would: a letter dropped, doubled, or swapped with the next one.

    The result always differs from `term`; a term without two unlike neighbouring letters loses a letter.
    """
    letters = [at for at in range(1, len(term)) if term[at].isalpha()]
    if not letters:
        return term + term[-1:]
    kind, at = pick(rng, SWAPS), pick(rng, letters)
    if kind == "double":
        return term[:at] + term[at] + term[at:]
    if kind == "swap" and at + 1 < len(term) and term[at + 1].isalpha() and term[at] != term[at + 1]:
        return term[:at] + term[at + 1] + term[at] + term[at + 2 :]
    return term[:at] + term[at + 1 :]
