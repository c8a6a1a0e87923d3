"""Find near-duplicates: MinHash with banding proposes, exact Jaccard similarity of the shingles decides.

MinHash and banding: Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3. Rows per
band follow from the threshold so that a pair exactly at it is proposed with probability 0.995 or more; a pair below it
is never reported. Memory: about 1.5 KB per dialog kept (8 bytes a shingle and one entry a band).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tercet.modality import Resources
from tercet.records import Candidate, Columns, Verdict
from tercet_text.documents import words
from tercet_text.recipe import NearDuplicatesGate

NUM_HASHES = 128
RECALL = 0.995
Shingles = npt.NDArray[np.uint64]  # sorted, unique


@functools.lru_cache(maxsize=200_000)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def shingles(text: str, num_words: int) -> Shingles:
    """Hash every run of `num_words` words; a shorter text is one shingle."""
    hashed = np.array([_hash_word(word) for word in words(text)], dtype=np.uint64)
    width = min(num_words, len(hashed))
    if not width:
        return np.zeros(0, dtype=np.uint64)
    count = len(hashed) - width + 1
    combined = np.zeros(count, dtype=np.uint64)
    for at in range(width):  # a polynomial over 2^64: order counts, so "a b" differs from "b a"
        combined = combined * np.uint64(0x9E3779B97F4A7C15) + hashed[at : at + count]
    return np.unique(combined)


def jaccard(one: Shingles, other: Shingles) -> float:
    """Compare two sets of shingles; two empty sets are equal."""
    if not len(one) and not len(other):
        return 1.0
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def rows_per_band(threshold: float) -> int:
    """Choose the longest band that still proposes a pair at the threshold with probability `RECALL`."""
    able = [rows for rows in range(1, 33) if 1 - (1 - threshold**rows) ** (NUM_HASHES // rows) >= RECALL]
    return max(able, default=1)


@dataclass
class Index:
    """The dialogs kept so far, found by their bands."""

    threshold: float
    kept: list[Shingles] = field(default_factory=list)
    _tables: list[dict[bytes, list[int]]] = field(init=False)
    _rows: int = field(init=False)

    def __post_init__(self) -> None:
        self._rows = rows_per_band(self.threshold)
        self._tables = [{} for _ in range(NUM_HASHES // self._rows)]
        random = np.random.Generator(np.random.PCG64(20250101))  # fixed: the same text has the same signature anywhere
        self._multipliers = random.integers(0, 2**63, (NUM_HASHES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = random.integers(0, 2**63, (NUM_HASHES, 1), dtype=np.uint64)

    def signature(self, found: Shingles) -> npt.NDArray[np.uint32]:
        """Hash a set to `NUM_HASHES` minima (multiply-shift)."""
        mixed = found[None, :] * self._multipliers + self._offsets
        smallest: npt.NDArray[np.uint32] = (mixed >> np.uint64(32)).astype(np.uint32).min(axis=1)
        return smallest

    def closest(self, found: Shingles) -> float:
        """Give the similarity to the nearest kept dialog that some band proposes; 0 without any."""
        keys = self._keys(found)
        proposed = {at for table, key in zip(self._tables, keys, strict=True) for at in table.get(key, ())}
        return max((jaccard(found, self.kept[at]) for at in sorted(proposed)), default=0.0)

    def add(self, found: Shingles) -> None:
        """Keep a dialog."""
        for table, key in zip(self._tables, self._keys(found), strict=True):
            table.setdefault(key, []).append(len(self.kept))
        self.kept.append(found)

    def _keys(self, found: Shingles) -> list[bytes]:
        if not len(found):
            return [b""] * len(self._tables)
        signature = self.signature(found)
        return [signature[at * self._rows : (at + 1) * self._rows].tobytes() for at in range(len(self._tables))]


class NearDuplicates:
    """Rejects a dialog too similar to one that was kept earlier in plan order; the system message doesn't count."""

    def __init__(self, section: NearDuplicatesGate, resources: Resources) -> None:  # noqa: ARG002
        self._section = section

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        """Give one verdict per dialog, in order."""
        index = Index(self._section.threshold)
        for candidate in candidates:
            found = shingles(spoken_text(candidate.payload), self._section.shingle_words)
            score = index.closest(found)
            passed = score < self._section.threshold
            if passed:
                index.add(found)
            reason = "" if passed else "near duplicate"
            yield Verdict("near_duplicates", passed, score, self._section.threshold, reason)


def spoken_text(payload: Columns) -> str:
    """Join what user and assistant say."""
    messages: list[Mapping[str, str]] = payload["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] != "system")
