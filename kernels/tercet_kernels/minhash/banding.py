"""Locality-sensitive hashing: which documents agree on a whole band of their signatures, and how much they agree.

Two documents of similarity J share at least one of B bands of R permutations with probability 1 - (1 - J^R)^B (Leskovec
and others, Mining of Massive Datasets, 3.4).
Shapes: D documents, P permutations, B bands of R permutations, K pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet_kernels.minhash.reference import mix, signed

FACTOR = signed(0xF1357AEA2E62A9C5)  # odd: a word in the polynomial of a band moves every bit above its lowest one
BLOCK_VALUES = 1 << 22  # signature values compared at a time: about 40 MiB


def candidate_pairs(signatures_DP: Tensor, bands: int, most_pairs: int, *, with_empty: bool) -> Tensor:
    """Return the pairs (earlier, later) that share a band, K x 2, sorted, each once."""
    words_DP = as_signed(signatures_DP)
    documents = len(words_DP)
    # a document without shingles has all ones everywhere; one with shingles has with a probability below 2^-32P
    chosen_C = torch.arange(documents, device=words_DP.device)
    if not with_empty:
        chosen_C = chosen_C[(words_DP != -1).any(1)]
    keys = []
    for band_CR in words_DP[chosen_C].tensor_split(bands, dim=1):
        earlier_K, later_K = _equal_pairs(_band_hash(band_CR), most_pairs)
        keys.append(chosen_C[earlier_K] * documents + chosen_C[later_K])
    key_K = torch.unique(torch.cat(keys))
    return torch.stack([key_K // max(documents, 1), key_K % max(documents, 1)], dim=1)


def _band_hash(band_CR: Tensor) -> Tensor:
    state_C = torch.zeros_like(band_CR[:, 0], dtype=torch.int64)
    for row in range(band_CR.shape[1]):
        state_C = state_C * FACTOR + band_CR[:, row]
    return mix(state_C)


def _equal_pairs(hash_C: Tensor, most_pairs: int) -> tuple[Tensor, Tensor]:
    """Return all pairs (earlier, later) of equal hashes: each place of a sorted run meets those before it."""
    sorted_C, order_C = torch.sort(hash_C, stable=True)
    _, run_C, sizes_G = torch.unique_consecutive(sorted_C, return_inverse=True, return_counts=True)
    place_C = torch.arange(len(hash_C), device=hash_C.device)
    first_C = (sizes_G.cumsum(0) - sizes_G)[run_C]
    rank_C = place_C - first_C
    count = int(rank_C.sum())
    if count > most_pairs:
        raise ValueError(
            f"bands: {count} pairs share one band, {int(sizes_G.max())} documents the largest group; {most_pairs} are "
            "allowed: remove exact copies first, use fewer bands, or raise most_pairs"
        )
    later_K = torch.repeat_interleave(place_C, rank_C, output_size=count)
    before_K = torch.repeat_interleave(rank_C.cumsum(0) - rank_C, rank_C, output_size=count)
    earlier_K = first_C[later_K] + torch.arange(count, device=hash_C.device) - before_K
    # the sort is stable: within a run, documents keep their order
    return order_C[earlier_K], order_C[later_K]


def agreement(signatures_DP: Tensor, pairs_K2: Tensor) -> Tensor:
    """Count the equal permutations of each pair, in int64."""
    words_DP = as_signed(signatures_DP)
    step = max(1, BLOCK_VALUES // words_DP.shape[1])
    counts = [(words_DP[block_K2[:, 0]] == words_DP[block_K2[:, 1]]).sum(1) for block_K2 in torch.split(pairs_K2, step)]
    return torch.cat([*counts, pairs_K2.new_empty(0)])


def as_signed(words: Tensor) -> Tensor:
    """View unsigned words as signed ones: torch sorts, compares and indexes those on every device."""
    return words.view(torch.int64 if words.dtype == torch.uint64 else torch.int32)
