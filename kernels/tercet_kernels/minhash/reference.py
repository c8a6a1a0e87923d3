"""MinHash, defined: shingle hashes of ragged documents, and signatures, one least value per permutation.

64-bit words are int64 tensors: sums and products wrap alike, and a logical shift is an arithmetic one with a mask.
Shapes: U bytes or words, S shingles of a document, D documents, P permutations, L units of a shingle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet_kernels.minhash.permutations import MERSENNE, WORD, Permutations
from tercet_kernels.ragged import spans

LOW = 0xFFFFFFFF
# rensa 0.5's R-MinHash: the domains of its seeds, and where a rank's two bits of round begin
BUCKET_DOMAIN = 0x6A09E667F3BCC909
ROUND_DOMAIN = 0x3C6EF372FE94F82B
FALLBACK_DOMAIN = 0xBB67AE8584CAA73B
ROUNDS = 3
RANK_BITS = 30
FALLBACK = ROUNDS << RANK_BITS


def signed(word: int) -> int:
    """Give the int64 of a 64-bit word's bits."""
    word &= WORD
    return word - (word >> 63 << 64)


def shift_right(words: Tensor, by: int) -> Tensor:
    """Shift in zeros from the left."""
    return (words >> by) & (WORD >> by)


def mix(words: Tensor) -> Tensor:
    """Mix each word: SplitMix64 (Steele and others, OOPSLA 2014), a bijection of 64 bits."""
    words = words + signed(0x9E3779B97F4A7C15)
    words = (words ^ shift_right(words, 30)) * signed(0xBF58476D1CE4E5B9)
    words = (words ^ shift_right(words, 27)) * signed(0x94D049BB133111EB)
    return words ^ shift_right(words, 31)


def shingle_hashes_reference(units_U: Tensor, offsets_D1: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Hash every run of `length` bytes (uint8) or words (their 64-bit hashes) of every document.

    From `length`, each eight bytes (little-endian, the last filled with zeros) or each word is xored in and mixed. Up
    to eight bytes no two shingles collide. A document of n units has max(0, n - length + 1) shingles.
    """
    hashes = [_hash_windows(units_U[start:end].unfold(0, length, 1)) if end - start >= length
              else units_U.new_empty(0, dtype=torch.int64) for start, end in spans(offsets_D1)]  # fmt: skip
    counts_D = (offsets_D1.diff() - length + 1).clamp(min=0)
    return torch.cat([*hashes, units_U.new_empty(0, dtype=torch.int64)]), _edges(counts_D)


def _hash_windows(windows_SL: Tensor) -> Tensor:
    length = windows_SL.shape[1]
    state_S = torch.full_like(windows_SL[:, 0], length, dtype=torch.int64)
    if windows_SL.dtype != torch.uint8:
        for word in range(length):
            state_S = mix(state_S ^ windows_SL[:, word])
        return state_S
    for start in range(0, length, 8):
        word_S = torch.zeros_like(state_S)
        for place, byte in enumerate(range(start, min(start + 8, length))):
            word_S |= windows_SL[:, byte].long() << 8 * place
        state_S = mix(state_S ^ word_S)
    return state_S


def _edges(counts_D: Tensor) -> Tensor:
    return torch.cat([counts_D.new_zeros(1), counts_D.cumsum(0)])


def signatures_reference(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations) -> Tensor:
    """Return each document's least value per permutation, D x P; all ones where it has no shingle."""
    permutations = permutations.to(hashes_U.device)
    none_P = torch.full_like(permutations.factor_P, signed(permutations.empty))
    rows = [
        values(hashes_U[start:end], permutations).amin(0) if end > start else none_P for start, end in spans(offsets_D1)
    ]
    least_DP = torch.stack(rows) if rows else none_P.new_empty(0, permutations.count)
    return least_DP.view(torch.uint64) if permutations.is_wide else least_DP.to(torch.uint32)


def values(hashes_S: Tensor, permutations: Permutations) -> Tensor:
    """Return the S x P values whose least, per permutation, is the signature.

    rensa-v1, rensa until 0.4: (a h + b mod 2^64) >> 32. datatrove and datasketch: (a h + b mod 2^64) mod (2^61 - 1);
    the first wraps, as numpy's uint64 does; datatrove's default and datasketch keep the low 32 bits.
    """
    if permutations.formula == "rensa-v2":
        return _ranks(hashes_S, permutations)
    line_SP = hashes_S[:, None] * permutations.factor_P + permutations.term_P
    if permutations.formula == "rensa-v1":
        return shift_right(line_SP, 32)
    folded_SP = (line_SP & MERSENNE) + shift_right(line_SP, 61)
    folded_SP = torch.where(folded_SP >= MERSENNE, folded_SP - MERSENNE, folded_SP)
    return folded_SP if permutations.is_wide else folded_SP & LOW


def _ranks(hashes_S: Tensor, permutations: Permutations) -> Tensor:
    """Return rensa 0.5's ranks: in three rounds a shingle meets one permutation each, in a fourth it meets all.

    The round stands in a rank's top two bits, so that a permutation met in an early round ignores the later ones. After
    fast similarity sketching (Dahlgaard and others, arXiv:1704.04370).
    """
    mixed_S = mix(hashes_S ^ fallback_seed(permutations))
    line_SP = mixed_S[:, None] * permutations.factor_P + permutations.term_P
    rank_SP = FALLBACK | shift_right(line_SP, 34) & (1 << RANK_BITS) - 1
    column_P = torch.arange(permutations.count, device=hashes_S.device)
    for number in range(ROUNDS):
        mixed_S = mix(hashes_S ^ round_seed(permutations, number))
        bucket_S = ((mixed_S & LOW) * permutations.count) >> 32
        drawn_S = number << RANK_BITS | shift_right(mixed_S, 34)
        met_SP = bucket_S[:, None] == column_P
        rank_SP = torch.where(met_SP, torch.minimum(rank_SP, drawn_S[:, None]), rank_SP)
    return rank_SP


def round_seed(permutations: Permutations, number: int) -> int:
    """Give the word that a round xors to every hash; one transfer from a device."""
    return signed(int(permutations.term_P[0]) ^ signed(BUCKET_DOMAIN) ^ signed(number * ROUND_DOMAIN))


def fallback_seed(permutations: Permutations) -> int:
    """Give the word that the fourth round xors to every hash; one transfer from a device."""
    return signed(int(permutations.factor_P[0]) ^ signed(FALLBACK_DOMAIN))
