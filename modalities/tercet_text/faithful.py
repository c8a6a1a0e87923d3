"""Hold a reworded answer against its draft: it may leave words out, it must not bring facts in."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tercet_text.completion import UnusableError
from tercet_text.documents import stem, words

MIN_LETTERS = 4  # shorter words carry grammar, not facts
MIN_KEPT = 0.35  # of the draft's longer words
MAX_NEW = 0.25  # of the answer's longer words
MAX_GROWTH = 1.25  # times the draft's length
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NEGATIONS = frozenset({"not", "no", "never", "nothing", "none", "neither", "nor", "without", "cannot", "unlike"})
NEGATED = re.compile(r"n[\u2019']t\b")


def refuse_unfaithful(text: str, draft: str, terms: Iterable[str]) -> None:
    """Refuse a rewording that strays from its draft.

    Raises:
        UnusableError: it grew, dropped most of the draft, brought in words or numbers, lost or gained a negation, or
            misspelt or dropped one of `terms` that the draft names.
    """
    if len(text) > MAX_GROWTH * len(draft):
        raise UnusableError("rewording grew")
    if share_kept(draft, text) < MIN_KEPT or share_kept(text, draft) < 1 - MAX_NEW:
        raise UnusableError("rewording strays from its draft")
    if set(NUMBER.findall(text)) - set(NUMBER.findall(draft)):
        raise UnusableError("rewording brings in a number")
    if any(term.casefold() in draft.casefold() and term.casefold() not in text.casefold() for term in terms):
        raise UnusableError("rewording lost a term")
    if _negates(text) != _negates(draft):
        raise UnusableError("rewording turns a negation")


def share_kept(source: str, text: str) -> float:
    """Give the share of the longer words of `source` that stand in `text`; 0 when it has none."""
    wanted = {stem(word) for word in words(source) if len(word) >= MIN_LETTERS}
    return len(wanted & {stem(word) for word in words(text)}) / len(wanted) if wanted else 0.0


def _negates(text: str) -> bool:
    return bool(NEGATED.search(text.casefold())) or not NEGATIONS.isdisjoint(words(text))
