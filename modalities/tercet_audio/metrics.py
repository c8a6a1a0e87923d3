"""Word errors on the domain's terms and off them: WER, B-WER, U-WER, term recall and false triggers.

B-WER counts errors on words that belong to a term, U-WER those on all other words (Le et al. 2021, arXiv:2104.02194);
an inserted word counts to B when it is a whole term. A term counts as recalled when all of its words are right.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Normalise = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors of one transcript against its reference, in words; `terms` counts the terms that the reference says."""

    errors: int
    words: int
    term_errors: int
    term_words: int
    recalled: int
    terms: int
    false_triggers: int

    @property
    def other_errors(self) -> int:
        """Count the errors off the domain's terms."""
        return self.errors - self.term_errors

    @property
    def other_words(self) -> int:
        """Count the reference's words off the domain's terms."""
        return self.words - self.term_words


@functools.cache
def english_normaliser() -> Normalise:
    """Return Whisper's English text normaliser (numbers, spelling, contractions, punctuation)."""
    from whisper.normalizers import EnglishTextNormalizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its spelling table's file open
        normalise: Normalise = EnglishTextNormalizer()
    return normalise


@functools.cache
def plain_normaliser() -> Normalise:
    """Return Whisper's language-neutral normaliser."""
    from whisper.normalizers import BasicTextNormalizer

    normalise: Normalise = BasicTextNormalizer()
    return normalise


def normaliser(language: str) -> Normalise:
    """Return the normaliser for a language code."""
    return english_normaliser() if language.split("-", maxsplit=1)[0] == "en" else plain_normaliser()


class TermErrors:
    """Counts word errors with respect to one list of terms."""

    def __init__(self, terms: Iterable[str], normalise: Normalise) -> None:
        self.normalise = normalise
        self.terms = sorted({tuple(normalise(term).split()) for term in terms} - {()}, key=len, reverse=True)
        self.first_words: dict[str, list[tuple[str, ...]]] = {}
        for term in self.terms:  # longest first: "beta blocker plus" before "beta blocker"
            self.first_words.setdefault(term[0], []).append(term)

    def __call__(self, reference: str, hypothesis: str) -> WordErrors:
        """Count one transcript's errors."""
        ref, hyp = self.normalise(reference).split(), self.normalise(hypothesis).split()
        spans = self.find(ref)
        inside = {position for start, stop in spans for position in range(start, stop)}
        wrong: set[int] = set()
        term_errors = errors = 0
        for ref_at, hyp_at in align(ref, hyp):
            if ref_at is not None and hyp_at is not None and ref[ref_at] == hyp[hyp_at]:
                continue
            errors += 1
            if ref_at is None:
                term_errors += hyp_at is not None and hyp[hyp_at] in self.only_in_terms
            else:
                wrong.add(ref_at)
                term_errors += ref_at in inside
        said = [ref[start:stop] for start, stop in spans]
        triggered = [hyp[start:stop] for start, stop in self.find(hyp)]
        for term in said:
            if term in triggered:
                triggered.remove(term)
        return WordErrors(
            errors=errors,
            words=len(ref),
            term_errors=term_errors,
            term_words=len(inside),
            recalled=sum(not wrong & set(range(start, stop)) for start, stop in spans),
            terms=len(spans),
            false_triggers=len(triggered),
        )

    @functools.cached_property
    def only_in_terms(self) -> frozenset[str]:
        """Return the words whose insertion counts as a domain error: those of one-word terms."""
        return frozenset(term[0] for term in self.terms if len(term) == 1)

    def find(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """List where terms stand in `words`, longest first at each place, without overlaps."""
        spans: list[tuple[int, int]] = []
        at = 0
        while at < len(words):
            for term in self.first_words.get(words[at], ()):
                if tuple(words[at : at + len(term)]) == term:
                    spans.append((at, at + len(term)))
                    at += len(term) - 1
                    break
            at += 1
        return spans


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Align two word sequences with the fewest edits; None stands for a missing partner."""
    import jiwer

    if not ref or not hyp:
        return [(at, None) for at in range(len(ref))] + [(None, at) for at in range(len(hyp))]
    pairs: list[tuple[int | None, int | None]] = []
    for chunk in jiwer.process_words(" ".join(ref), " ".join(hyp)).alignments[0]:
        refs = range(chunk.ref_start_idx, chunk.ref_end_idx)
        hyps = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "insert":
            pairs += [(None, at) for at in hyps]
        elif chunk.type == "delete":
            pairs += [(at, None) for at in refs]
        else:
            pairs += list(zip(refs, hyps, strict=True))
    return pairs


def word_errors(reference: str, hypothesis: str, language: str = "en") -> WordErrors:
    """Count plain word errors, without a list of terms."""
    return TermErrors((), normaliser(language))(reference, hypothesis)
