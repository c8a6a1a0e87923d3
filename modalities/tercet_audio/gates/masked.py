"""What a listener heard against what was to be said, with the term masked: it can't spell the term, and need not.

Errors count off the term alone. In the term's place something of about its length must have been heard, or the engine
skipped it: word errors off the term can't show that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tercet_audio.metrics import Normalise, align

Span = range  # of words
Pair = tuple[int | None, int | None]  # (reference word, heard word)

# Whisper writes either; its normaliser keeps both
UNITS = {
    "mg": "milligrams", "milligram": "milligrams", "mcg": "micrograms", "microgram": "micrograms", "g": "grams",
    "gram": "grams", "kg": "kilograms", "kilogram": "kilograms", "ml": "milliliters", "milliliter": "milliliters",
    "millilitre": "milliliters", "millilitres": "milliliters", "cm": "centimeters", "km": "kilometers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heard:
    """Errors and words off the term; `term_ratios`: letters heard in the term's place / its own, place by place."""

    errors: int
    words: int
    term_ratios: tuple[float, ...] = ()

    @property
    def wer(self) -> float:
        """Give the word error rate off the term; 0 when there is nothing but the term."""
        return self.errors / self.words if self.words else 0.0


def compare(text: str, term: str, heard: str, normalise: Normalise) -> Heard:
    """Compare a transcript with the text of its clip; an empty `term` masks nothing."""
    words, spans = mask(text, term, normalise)
    said = split_words(heard, normalise)
    owner = {at: number for number, span in enumerate(spans) for at in span}
    letters = [0] * len(spans)
    wrong: list[Pair | None] = []  # None between two stretches of errors
    pairs = align(words, said)
    for pair, number in zip(pairs, owners(pairs, owner), strict=True):
        ref, hyp = pair
        if number is not None:
            letters[number] += len(said[hyp]) if hyp is not None else 0
        is_right = ref is not None and hyp is not None and words[ref] == said[hyp]
        wrong.append(None if is_right or number is not None else pair)
    ratios = tuple(
        count / max(1, sum(len(words[at]) for at in span)) for count, span in zip(letters, spans, strict=True)
    )
    return Heard(sum(_errors(stretch, words, said) for stretch in _stretches(wrong)), len(words) - len(owner), ratios)


def mask(text: str, term: str, normalise: Normalise) -> tuple[list[str], list[Span]]:
    """Split a text into normalised words, and say where the term stands among them."""
    if not term.strip():
        return split_words(text, normalise), []
    words: list[str] = []
    spans: list[Span] = []
    pieces = re.split(rf"(?<!\w)({re.escape(term.strip())})(?!\w)", text, flags=re.IGNORECASE)
    for number, piece in enumerate(pieces):
        found = split_words(piece, normalise)
        if number % 2 and found:  # re.split puts what it splits at in the odd places
            spans.append(range(len(words), len(words) + len(found)))
        words += found
    return words, spans


def split_words(text: str, normalise: Normalise) -> list[str]:
    """Normalise and split; units of measure come out in full."""
    return [UNITS.get(word, word) for word in normalise(text).split()]


def owners(pairs: Sequence[Pair], owner: dict[int, int]) -> list[int | None]:
    """Say which span each pair of an alignment belongs to: a span's own words, and inserted words next to them.

    A name that the listener doesn't know often comes out in several words, of which the alignment takes only one for
    the name.
    """
    own = [owner.get(ref) if ref is not None else None for ref, _ in pairs]
    for step in (1, -1):
        places = range(len(pairs)) if step == 1 else range(len(pairs) - 1, -1, -1)
        for at in places:
            before = at - step
            if pairs[at][0] is None and own[at] is None and 0 <= before < len(pairs):
                own[at] = own[before]
    return own


def _stretches(wrong: Sequence[Pair | None]) -> Iterator[list[Pair]]:
    for is_wrong, stretch in groupby(wrong, key=lambda pair: pair is not None):
        if is_wrong:
            yield [pair for pair in stretch if pair is not None]


def _errors(stretch: Sequence[Pair], words: Sequence[str], said: Sequence[str]) -> int:
    """Count a stretch of errors; "every day" heard as "everyday" is none."""
    ref = "".join(words[at] for at, _ in stretch if at is not None)
    hyp = "".join(said[at] for _, at in stretch if at is not None)
    return 0 if ref == hyp else len(stretch)
