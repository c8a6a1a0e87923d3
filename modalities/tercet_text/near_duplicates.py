"""Find near-duplicates: MinHash with banding proposes, exact Jaccard similarity of the shingles decides.

MinHash and banding: Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3. Rows per
band follow from the threshold so that a pair exactly at it is proposed with probability 0.995 or more; a pair below it
is never reported. Memory: about 1.5 KB per dialog kept (8 bytes a shingle and one entry a band). Signatures come from
`tercet_kernels.minhash` where there is a GPU, else from the same formula in numpy: the same bits.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tercet.machine import has_gpu
from tercet.modality import Resources
from tercet.records import Candidate, Columns, Verdict
from tercet_text.documents import words
from tercet_text.recipe import NearDuplicatesGate

NUM_HASHES = 128
RECALL = 0.995
BLOCK = 1024  # dialogs signed at a time
Shingles = npt.NDArray[np.uint64]  # sorted, unique
Signature = npt.NDArray[np.uint32]  # NUM_HASHES minima


def _constants() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Draw a factor and a term for each hash; fixed, so that the same text has the same signature anywhere."""
    random = np.random.Generator(np.random.PCG64(20250101))
    factors = random.integers(0, 2**63, NUM_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, random.integers(0, 2**63, NUM_HASHES, dtype=np.uint64)


FACTORS, TERMS = _constants()


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


def signed(sets: Iterable[Shingles]) -> Iterator[tuple[Shingles, Signature]]:
    """Pair each set with its signature; on a GPU a block is signed at a time."""
    if not has_gpu():
        yield from ((found, sign(found)) for found in sets)
        return
    remaining = iter(sets)
    while block := list(itertools.islice(remaining, BLOCK)):
        yield from zip(block, sign_on_device(block, "cuda"), strict=True)


def sign(found: Shingles) -> Signature:
    """Hash a set to `NUM_HASHES` minima: the upper half of (factor * shingle + term) modulo 2^64."""
    if not len(found):
        return np.full(NUM_HASHES, 0xFFFFFFFF, dtype=np.uint32)
    mixed = found[None, :] * FACTORS[:, None] + TERMS[:, None]
    smallest: Signature = (mixed.min(axis=1) >> np.uint64(32)).astype(np.uint32)
    return smallest


def sign_on_device(sets: Sequence[Shingles], device: str) -> Sequence[Signature]:
    """Do the same with `tercet_kernels.minhash`, for all sets at once."""
    import torch

    from tercet_kernels.minhash import Permutations, signatures

    factors, terms = (torch.from_numpy(values.view(np.int64)) for values in (FACTORS, TERMS))
    family = Permutations("rensa-v1", factors, terms).to(device)  # the formula's name there
    sizes = torch.tensor([0, *(len(found) for found in sets)])
    hashes = torch.from_numpy(np.concatenate(sets).view(np.int64))
    return list(signatures(hashes.to(device), sizes.cumsum(0).to(device), family).cpu().numpy())


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

    def closest(self, found: Shingles, signature: Signature) -> float:
        """Give the similarity to the nearest kept dialog that some band proposes; 0 without any."""
        keys = self._keys(found, signature)
        proposed = {at for table, key in zip(self._tables, keys, strict=True) for at in table.get(key, ())}
        return max((jaccard(found, self.kept[at]) for at in sorted(proposed)), default=0.0)

    def add(self, found: Shingles, signature: Signature) -> None:
        """Keep a dialog."""
        for table, key in zip(self._tables, self._keys(found, signature), strict=True):
            table.setdefault(key, []).append(len(self.kept))
        self.kept.append(found)

    def _keys(self, found: Shingles, signature: Signature) -> list[bytes]:
        if not len(found):
            return [b""] * len(self._tables)
        return [signature[at * self._rows : (at + 1) * self._rows].tobytes() for at in range(len(self._tables))]


class NearDuplicates:
    """Rejects a dialog too similar to one that was kept earlier in plan order; the system message doesn't count."""

    def __init__(self, section: NearDuplicatesGate, resources: Resources) -> None:  # noqa: ARG002
        self._section = section

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        """Give one verdict per dialog, in order."""
        index = Index(self._section.threshold)
        sets = (shingles(spoken_text(candidate.payload), self._section.shingle_words) for candidate in candidates)
        for found, signature in signed(sets):
            score = index.closest(found, signature)
            passed = score < self._section.threshold
            if passed:
                index.add(found, signature)
            reason = "" if passed else "near duplicate"
            yield Verdict("near_duplicates", passed, score, self._section.threshold, reason)


def spoken_text(payload: Columns) -> str:
    """Join what user and assistant say."""
    messages: list[Mapping[str, str]] = payload["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] != "system")
