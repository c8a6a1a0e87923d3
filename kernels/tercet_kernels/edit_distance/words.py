"""Word errors as jiwer counts them: the same words, the same pooled rate.

Shapes: B sentences.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from torch import Tensor

SPACES = re.compile(r"\s\s+")


class WordErrors(NamedTuple):
    """What `word_errors` counts in each pair of sentences: edits, and words of the reference."""

    distances_B: Tensor
    lengths_B: Tensor

    @property
    def wer(self) -> float:
        """Give the pooled word error rate: edits by reference words.

        Where no reference has a word, jiwer 4 answers the number of inserted words, and so does this: 0 for silence
        that was heard as silence.
        """
        edits, words = int(self.distances_B.sum()), int(self.lengths_B.sum())
        return edits / words if words else float(edits)


def word_ids(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Give each different word a number, in the order in which words first come, and sentences as such numbers."""
    number: defaultdict[str, int] = defaultdict(count().__next__)
    numbered = [[list(map(number.__getitem__, words)) for words in split(side)] for side in (references, hypotheses)]
    return numbered[0], numbered[1]


def split(sentences: Sequence[str]) -> Iterator[list[str]]:
    """Split sentences into words by jiwer's default rules.

    Two or more white spaces make one blank, the ends are stripped, and blanks part words: so a single tab stands
    inside a word. Of all white space only the blank is printable; where it's the only one, `str.split` does the same.
    """
    for sentence in sentences:
        if sentence.isprintable():
            yield sentence.split()
        else:
            yield [word for word in SPACES.sub(" ", sentence).strip().split(" ") if word]
