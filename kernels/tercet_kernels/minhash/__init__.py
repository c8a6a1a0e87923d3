"""MinHash: signatures of documents whose agreement estimates their Jaccard similarity, and the pairs that are alike.

    hashes, edges = shingle_hashes(bytes, offsets, 5)
    signed = signatures(hashes, edges, permutations(128))
    pairs, similarity = near_duplicates(signed, num_bands=16, threshold=0.8)

or all of the first two lines with `signatures_of_texts`. Documents are ragged: all their values in one tensor, and
where each begins (`ragged.py`). 64-bit hashes are int64 or uint64 tensors, the same bits.
Shapes: U bytes, words or shingles, D documents, P permutations, K pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.dispatch import choose_path
from tercet_kernels.minhash.banding import agreement, candidate_pairs
from tercet_kernels.minhash.host import shingle_hashes_on_host, signatures_on_host
from tercet_kernels.minhash.permutations import FORMULAS, Permutations, permutations
from tercet_kernels.minhash.reference import shingle_hashes_reference, signatures_reference
from tercet_kernels.ragged import check_rows

__all__ = [
    "FORMULAS", "Permutations", "bands", "jaccard", "near_duplicates", "permutations", "shingle_hashes", "signatures",
    "signatures_of_texts",
]  # fmt: skip

LONGEST_SHINGLE = 64  # the kernel unrolls its units


def shingle_hashes(
    units_U: Tensor, offsets_D1: Tensor, length: int = 5, *, path: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Hash each run of `length` units within each document; return the hashes (int64) and their offsets.

    Units are bytes (uint8) or words, given by 64-bit hashes of their own. A document of n units has n - length + 1
    shingles, and none where it is shorter.

    Raises ValueError for units of another dtype, a length outside 1 to 64, or offsets that don't fit.
    """
    units_U = _words(units_U) if units_U.dtype != torch.uint8 else units_U
    check_rows("shingle_hashes", units_U, offsets_D1)
    if not 1 <= length <= LONGEST_SHINGLE:
        raise ValueError(f"shingle_hashes: length is {length}; choose 1 to {LONGEST_SHINGLE}")
    if choose_path("minhash", units_U, path).is_triton:
        from tercet_kernels.minhash.fused import shingle_hashes_fused

        return shingle_hashes_fused(units_U, offsets_D1, length)
    on_host = units_U.device.type == "cpu"
    return (shingle_hashes_on_host if on_host else shingle_hashes_reference)(units_U, offsets_D1, length)


def signatures(hashes_U: Tensor, offsets_D1: Tensor, permutations: Permutations, *, path: str = "auto") -> Tensor:
    """Return each document's least hash per permutation, D x P: uint32, or uint64 for datatrove-64.

    Bit for bit what the formula's library gives for the same shingle hashes. A document without shingles gets all ones.
    On a CPU rensa itself computes rensa-v2.

    Raises ValueError for hashes of another dtype, or offsets that don't fit.
    """
    hashes_U = _words(hashes_U)
    check_rows("signatures", hashes_U, offsets_D1)
    if choose_path("minhash", hashes_U, path).is_triton:
        from tercet_kernels.minhash.fused import signatures_fused

        return signatures_fused(hashes_U, offsets_D1, permutations)
    on_host = hashes_U.device.type == "cpu"
    return (signatures_on_host if on_host else signatures_reference)(hashes_U, offsets_D1, permutations)


def signatures_of_texts(
    texts: Sequence[str],
    permutations: Permutations,
    *,
    length: int = 5,
    device: torch.device | str = "cpu",
    path: str = "auto",
) -> Tensor:
    """Sign texts by their UTF-8 bytes' shingles of `length`; the bytes alone travel to `device`."""
    encoded = [text.encode() for text in texts]
    sizes_D = torch.tensor([len(data) for data in encoded], dtype=torch.int64)
    offsets_D1 = torch.cat([sizes_D.new_zeros(1), sizes_D.cumsum(0)])
    joined = bytearray(b"".join(encoded))
    units_U = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.empty(0, dtype=torch.uint8)
    hashes_U, edges_D1 = shingle_hashes(units_U.to(device), offsets_D1.to(device), length, path=path)
    return signatures(hashes_U, edges_D1, permutations, path=path)


def bands(signatures_DP: Tensor, num_bands: int, *, with_empty: bool = False, most_pairs: int = 50_000_000) -> Tensor:
    """Return the candidate pairs (earlier, later), int64 K x 2: those that agree on all of a band, sorted.

    Documents without shingles are nobody's candidates unless `with_empty`. `most_pairs` bounds the pairs of a band: a
    group of g copies has g (g - 1) / 2 of them.

    Raises ValueError where bands don't divide the permutations evenly, or a band has more pairs than allowed.
    """
    _check_signatures("bands", signatures_DP)
    count = signatures_DP.shape[1]
    if num_bands < 1 or count % num_bands:
        raise ValueError(f"bands: num_bands is {num_bands}; give a divisor of the {count} permutations")
    return candidate_pairs(signatures_DP, num_bands, most_pairs, with_empty=with_empty)


def jaccard(signatures_DP: Tensor, pairs_K2: Tensor, *, path: str = "auto") -> Tensor:
    """Estimate each pair's Jaccard similarity in fp32: the share of equal permutations.

    Its standard error is at most sqrt(J (1 - J) / P). Two documents without shingles are equal.

    Raises ValueError for pairs that aren't int64 K x 2 or name documents that aren't there.
    """
    _check_signatures("jaccard", signatures_DP)
    if pairs_K2.dtype != torch.int64 or pairs_K2.dim() != 2 or pairs_K2.shape[1] != 2:
        raise ValueError(f"jaccard: pairs are {pairs_K2.dtype} of shape {tuple(pairs_K2.shape)}; give int64, K x 2")
    documents = len(signatures_DP)
    least, most = (int(pairs_K2.min()), int(pairs_K2.max())) if len(pairs_K2) else (0, -1)
    if least < 0 or most >= documents:
        raise ValueError(f"jaccard: pairs name documents {least} to {most}; there are {documents} from 0")
    if choose_path("minhash", signatures_DP, path).is_triton:
        from tercet_kernels.minhash.fused import agreement_fused

        counts_K = agreement_fused(signatures_DP, pairs_K2)
    else:
        counts_K = agreement(signatures_DP, pairs_K2)
    return counts_K.float() / signatures_DP.shape[1]


def near_duplicates(
    signatures_DP: Tensor, num_bands: int, threshold: float, *, with_empty: bool = False, path: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Return the candidate pairs whose estimate is at least `threshold`, and their estimates."""
    pairs_K2 = bands(signatures_DP, num_bands, with_empty=with_empty)
    similarity_K = jaccard(signatures_DP, pairs_K2, path=path)
    alike_K = similarity_K >= threshold
    return pairs_K2[alike_K], similarity_K[alike_K]


def _words(words_U: Tensor) -> Tensor:
    if words_U.dtype not in {torch.int64, torch.uint64}:
        raise ValueError(f"minhash: hashes are {words_U.dtype}; give 64 bits each, as int64 or uint64")
    return words_U.contiguous().view(torch.int64)


def _check_signatures(operator: str, signatures_DP: Tensor) -> None:
    if (
        signatures_DP.dtype not in {torch.uint32, torch.uint64}
        or signatures_DP.dim() != 2
        or not signatures_DP.shape[1]
    ):
        found = f"{signatures_DP.dtype} of shape {tuple(signatures_DP.shape)}"
        raise ValueError(f"{operator}: signatures are {found}; give what signatures() returned")
