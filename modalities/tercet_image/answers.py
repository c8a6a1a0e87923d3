"""Count a short answer as right or wrong, and notice a name of the recipe where none was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable

ANSWER_ERRORS = "VQA errors"
KNOWN_ERRORS = "VQA errors off the new names"
FALSE_NAMES = "new names said in error"
ARTICLES = frozenset({"a", "an", "the"})


def normal(text: str) -> str:
    """Leave case, punctuation and articles out, as VQA's own scoring does (arXiv:1505.00468)."""
    words = re.findall(r"[\w-]+", text.casefold())
    return " ".join(word for word in words if word not in ARTICLES)


def count_answer(question: str, wanted: str, said: str, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Count errors over questions; those without a name of `names` count a second time, on their own."""
    is_wrong = float(normal(said) != normal(wanted))
    counts = {ANSWER_ERRORS: (is_wrong, 1.0)}
    asked = f"{question} {wanted}"
    if not mentions(asked, names):
        counts[KNOWN_ERRORS] = (is_wrong, 1.0)
        counts[FALSE_NAMES] = (float(mentions(said, names)), 1.0)
    return counts


def mentions(text: str, names: Iterable[str]) -> bool:
    """Say whether a text holds one of the names, whole words and whatever the case."""
    said = f" {normal(text)} "
    return any(f" {normal(name)} " in said for name in names)
