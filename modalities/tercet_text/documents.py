"""Find the sentence of the user's documents that answers a question; every quote is an exact piece of its document.

Ranking is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) over sentences, after a strict
test: an answer about a term stands in a sentence, or under a heading, that names the term.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from tercet.sources import Document, Term

K1, B = 1.2, 0.75  # BM25's usual constants
MIN_QUOTE_CHARACTERS, MAX_QUOTE_CHARACTERS = 20, 400
WORD = re.compile(r"[^\W_]+", re.UNICODE)
BLOCK = re.compile(r"[^\n]+(?:\n(?![ \t]*(?:\n|#|[-*+] |\d+[.)] |\|))[^\n]+)*")  # a paragraph, heading or list entry
MARKER = re.compile(r"[ \t]*(?:[-*+>] |\d+[.)] )?[ \t]*")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bDr\.)\s+(?=[A-Z0-9\"“(])")
Kind = Literal["answer", "partial", "general", "none"]


class Quote(TypedDict):
    """A piece of a document, as it stands there."""

    document: str
    title: str
    quote: str


class Found(TypedDict):
    """What the documents say: an answer, something else about the term, a general rule, or nothing."""

    kind: Kind
    quotes: list[Quote]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence with the words it is found by."""

    quote: Quote
    own: frozenset[str]
    heading: frozenset[str]
    num_words: int


def words(text: str) -> list[str]:
    """Split into case-folded words."""
    return WORD.findall(text.casefold())


@functools.lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Cut the commonest English endings, so that "stored" finds "store"; other languages keep their words."""
    for ending in ("ing", "ies", "ed", "es", "s", "e"):
        if len(word) - len(ending) >= 4 and word.endswith(ending):
            return word[: -len(ending)]
    return word


class DocumentIndex:
    """The sentences of all documents, ready to be asked."""

    def __init__(self, documents: Sequence[Document], terms: Sequence[Term]) -> None:
        self.sentences = [sentence for document in documents for sentence in _sentences(document)]
        self._where: dict[str, list[int]] = defaultdict(list)
        counts: Counter[str] = Counter()
        for at, sentence in enumerate(self.sentences):
            counts.update(sentence.own)
            for word in sentence.own | sentence.heading:
                self._where[word].append(at)
        total = len(self.sentences)
        self._idf = {word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in counts.items()}
        self._average = sum(sentence.num_words for sentence in self.sentences) / total if total else 1.0
        self._of_terms = self._mark_terms(terms)
        self.find = functools.lru_cache(maxsize=16_384)(self._find)

    def _mark_terms(self, terms: Sequence[Term]) -> set[int]:
        """Collect the sentences that speak of some term, and so are no general rule."""
        return {at for term in terms for at in self._naming(_stems(term.text))}

    def _naming(self, term: frozenset[str]) -> list[int]:
        """List the sentences that hold all words of a term, in themselves or in their heading."""
        if not term:
            return []
        rarest = min((self._where.get(word, []) for word in term), key=len)
        return [at for at in rarest if term <= self.sentences[at].own | self.sentences[at].heading]

    def _find(self, term: str, keywords: tuple[str, ...], may_be_general: bool) -> Found:  # noqa: FBT001 - cached
        """Find the best sentence on `term` for a question with these keywords, or a rule that holds for all terms."""
        wanted = frozenset(stem(word) for keyword in keywords for word in words(keyword))
        naming = self._naming(_stems(term))
        answers = [at for at in naming if wanted & self.sentences[at].own]
        if answers:
            return self._found("answer", answers, wanted)
        if may_be_general and (rules := self._rules(wanted)):
            return self._found("general", rules, wanted)
        return self._found("partial", naming, _stems(term)) if naming else {"kind": "none", "quotes": []}

    def _rules(self, wanted: frozenset[str]) -> list[int]:
        """List the sentences that name no term and hold two of the question's words; one alone says too little."""
        near = {at for word in wanted for at in self._where.get(word, [])} - self._of_terms
        return [at for at in near if len(wanted & self.sentences[at].own) >= 2]

    def _found(self, kind: Kind, candidates: Iterable[int], wanted: frozenset[str]) -> Found:
        best = min(candidates, key=lambda at: (-self._score(at, wanted), at))
        return {"kind": kind, "quotes": [self.sentences[best].quote]}

    def _score(self, at: int, wanted: frozenset[str]) -> float:
        sentence = self.sentences[at]
        length = K1 * (1 - B + B * sentence.num_words / self._average)
        return sum(self._idf[word] * (K1 + 1) / (1 + length) for word in sorted(wanted & sentence.own))


def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text))


def _sentences(document: Document) -> Iterator[Sentence]:
    title, heading = _title(document), frozenset[str]()
    for block in BLOCK.finditer(document.text):
        if block.group().lstrip().startswith("#"):
            heading = _stems(block.group())
            continue
        start = block.start() + len(_prefix(block.group()))
        for piece in _split(document.text[start : block.end()]):
            if MIN_QUOTE_CHARACTERS <= len(piece) <= MAX_QUOTE_CHARACTERS and WORD.search(piece):
                found = words(piece)
                quote = Quote(document=document.name, title=title, quote=piece)
                yield Sentence(quote, frozenset(map(stem, found)), heading, len(found))


def _prefix(block: str) -> str:
    match = MARKER.match(block)
    return match.group() if match else ""


def _split(text: str) -> Iterator[str]:
    for piece in SENTENCE_END.split(text):
        if piece.strip():
            yield piece.strip()


def _title(document: Document) -> str:
    first = document.text.lstrip().split("\n", 1)[0].strip()
    if first.startswith("#") and (heading := first.lstrip("#").strip()):
        return heading.split(": ")[0][:80]  # "Taking medicines: what the label says" reads badly before a quote
    return document.name.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("_", " ").replace("-", " ")


def on_one_line(quote: str) -> str:
    """Write a quote without the document's line breaks, as a message shows it."""
    return " ".join(quote.split())
