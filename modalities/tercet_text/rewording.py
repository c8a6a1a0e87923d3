"""Choose what of a drafted answer a small model rewords: all of it first, then one sentence at a time.

A model of 135M parameters loses the thread of a long draft; of one sentence it mostly keeps the meaning. What stands
in quotation marks is the documents' own word and is never reworded by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SENTENCE = re.compile(r"\S.*?[.!?][\"”’)]*(?=\s|$)", re.DOTALL)
QUOTES = re.compile(r"[\"“”]")
MIN_CHARACTERS = 30  # a shorter sentence says nothing worth another wording
CHARACTERS_PER_TOKEN = 3  # on the safe side: English has about 4
MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a draft, and what stands around it."""

    before: str
    text: str
    after: str

    def put(self, reworded: str) -> str:
        """Give the draft with this part reworded."""
        return f"{self.before}{reworded}{self.after}"

    @property
    def max_tokens(self) -> int:
        """Tokens that a faithful rewording needs at most: it may not grow."""
        return max(MIN_TOKENS, len(self.text) // CHARACTERS_PER_TOKEN)


def piece_for(draft: str, attempt: int) -> Piece:
    """Give what to reword at this attempt: the whole draft, then its sentences, the longest first, and again."""
    pieces = [Piece("", draft, ""), *sorted(_sentences(draft), key=lambda piece: -len(piece.text))]
    return pieces[attempt % len(pieces)]


def _sentences(draft: str) -> list[Piece]:
    found = []
    for match in SENTENCE.finditer(draft):
        before, after = draft[: match.start()], draft[match.end() :]
        # an odd number of marks before it: the sentence lies inside a quotation
        is_quoted = QUOTES.search(match[0]) or len(QUOTES.findall(before)) % 2
        if len(match[0]) >= MIN_CHARACTERS and (before or after) and not is_quoted:
            found.append(Piece(before, match[0], after))
    return found
