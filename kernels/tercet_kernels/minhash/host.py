"""MinHash on a CPU: rensa where it computes the formula, blocks of numpy elsewhere.

Shapes: U bytes, words or shingles, D documents, P permutations.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tercet_kernels.minhash.permutations import MERSENNE, Permutations
from tercet_kernels.minhash.reference import signatures_reference
from tercet_kernels.ragged import spans

BLOCK_DOCUMENTS = 2048  # of one call of rensa: its rows come back as Python lists, 4 MiB at 128 permutations
BLOCK_SHINGLES = 256  # by 128 permutations of 8 bytes: 256 KiB, inside L2
BLOCK_UNITS = 1 << 14  # hashed at a time: arrays of 128 KiB


def signatures_on_host(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations) -> Tensor:
    """Return the signatures of the definition, D x P, from CPU tensors."""
    if permutations.formula == "rensa-v2":
        if permutations.seed is not None and rensa_fits():
            return _by_rensa(hashes_U, offsets_D1, permutations)
        return signatures_reference(hashes_U, offsets_D1, permutations)
    return _by_numpy(hashes_U, offsets_D1, permutations)


@functools.cache
def rensa_fits() -> bool:
    """Tell whether the rensa that is installed computes rensa-v2: 0.5 does, 0.4 had other signatures."""
    try:
        from rensa import RMinHash
    except ImportError:
        return False
    return getattr(RMinHash, "ALGORITHM_VERSION", 1) == 2 and hasattr(RMinHash, "digest_matrix_from_flat_token_hashes")


def _by_rensa(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations) -> Tensor:
    import numpy as np
    from rensa import RMinHash

    hashes = hashes_U.contiguous().view(torch.uint64).numpy()
    edges = offsets_D1.view(torch.uint64).numpy()
    documents = len(edges) - 1
    out = np.empty((documents, permutations.count), dtype=np.uint32)
    for first in range(0, documents, BLOCK_DOCUMENTS):
        block = edges[first : first + BLOCK_DOCUMENTS + 1]
        digests = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes[block[0] : block[-1]], block - block[0], permutations.count, permutations.seed
        )
        out[first : first + BLOCK_DOCUMENTS] = digests.to_rows()
    return torch.from_numpy(out)


def _by_numpy(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations) -> Tensor:
    import numpy as np

    hashes = hashes_U.numpy().view(np.uint64)
    factor = permutations.factor_P.numpy().view(np.uint64)
    term = permutations.term_P.numpy().view(np.uint64)
    out = np.full((len(offsets_D1) - 1, permutations.count), permutations.empty, dtype=np.uint64)
    prime = np.uint64(MERSENNE)
    for least, (start, end) in zip(out, spans(offsets_D1), strict=True):
        for first in range(start, end, BLOCK_SHINGLES):
            line = hashes[first : min(first + BLOCK_SHINGLES, end), None] * factor
            line += term
            if permutations.formula == "rensa-v1":
                # shifting never changes which value is least: one shift per permutation instead of one per value
                np.minimum(least, line.min(0) >> np.uint64(32), out=least)
                continue
            top = line >> np.uint64(61)
            line &= prime
            line += top
            np.subtract(line, prime, out=top)
            np.minimum(line, top, out=line)  # below the prime the difference wraps to a huge number
            if not permutations.is_wide:
                line &= np.uint64(0xFFFFFFFF)
            np.minimum(least, line.min(0), out=least)
    return torch.from_numpy(out if permutations.is_wide else out.astype(np.uint32))


def shingle_hashes_on_host(units_U: Tensor, offsets_D1: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Hash all documents as one, block by block, and drop what straddles two: the definition's hashes, int64."""
    import numpy as np

    counts_D = (offsets_D1.diff() - length + 1).clamp(min=0)
    edges_D1 = torch.cat([counts_D.new_zeros(1), counts_D.cumsum(0)])
    total = int(edges_D1[-1])
    if not total:
        return units_U.new_empty(0, dtype=torch.int64), edges_D1
    runs = len(units_U) - length + 1
    hashes = np.empty(runs, dtype=np.uint64)
    units = units_U.numpy() if units_U.dtype == torch.uint8 else units_U.numpy().view(np.uint64)
    for first in range(0, runs, BLOCK_UNITS):
        block = units[first : first + BLOCK_UNITS + length - 1]
        hashes[first : first + BLOCK_UNITS] = _hash_block(block, length)
    shift_U = torch.repeat_interleave(offsets_D1[:-1] - edges_D1[:-1], counts_D, output_size=total)
    return torch.from_numpy(hashes.view(np.int64))[torch.arange(total) + shift_U], edges_D1


def _hash_block(units: Any, length: int) -> Any:
    """Hash every run of `length` units, straight through a block; see `shingle_hashes_reference`."""
    import numpy as np

    count = len(units) - length + 1
    state = np.full(count, length, dtype=np.uint64)
    if units.dtype == np.uint64:
        for place in range(length):
            state ^= units[place : place + count]
            _mix(state)
        return state
    wide = units.astype(np.uint64)
    for place in range(length):
        state ^= wide[place : place + count] << np.uint64(8 * (place % 8))
        if place % 8 == 7 or place == length - 1:
            _mix(state)
    return state


def _mix(words: Any) -> None:
    """Mix in place; see `reference.mix`."""
    import numpy as np

    words += np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
