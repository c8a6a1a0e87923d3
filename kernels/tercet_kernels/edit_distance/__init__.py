"""Edit distances of many pairs of token sequences, and word errors by jiwer's definition.

On a CPU, ids become code points and rapidfuzz compares strings; on a GPU, a Triton kernel keeps ids where a decoder
left them. Both are exact.
Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet_kernels.dispatch import choose_path
from tercet_kernels.edit_distance.tokens import Batch, Tokens, as_batch, as_strings
from tercet_kernels.edit_distance.words import WordErrors, word_ids

__all__ = ["WordErrors", "edit_distance", "word_errors"]


def edit_distance(a: Tokens, b: Tokens, *, path: str = "auto") -> Tensor:
    """Return the edit distance of each pair as int64, on the device of the ids.

    `a` and `b` are lists of lists of integers, or (flat, offsets) tensors such as `tokens.Batch`. On the path "torch",
    rapidfuzz runs on the CPU with torch's number of threads.

    Raises ValueError for batches of different lengths or devices, ids that aren't integers, offsets that don't climb.
    """
    first, second = as_batch(a, "a"), as_batch(b, "b")
    if len(first.offsets_B1) != len(second.offsets_B1):
        raise ValueError(
            f"edit_distance: a has {len(first.offsets_B1) - 1} sequences and b {len(second.offsets_B1) - 1}; "
            "give as many of each"
        )
    device = first.flat_T.device
    if second.flat_T.device != device:
        raise ValueError(f"edit_distance: a is on {device} and b on {second.flat_T.device}; move one")
    if choose_path("edit_distance", first.flat_T, path).is_triton:
        from tercet_kernels.edit_distance.fused import distances_fused

        return distances_fused(first, second, beyond=_by_rapidfuzz)
    return _by_rapidfuzz(first, second)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Count the word edits between each reference and its hypothesis, and the reference's words; `.wer` pools them.

    Equal to jiwer 4 with its default transforms. An empty reference counts no words, and each word of its hypothesis
    as an insertion.

    Raises ValueError where there are more of one than of the other.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"word_errors: {len(references)} references and {len(hypotheses)} hypotheses; give one for each"
        )
    spoken, heard = word_ids(references, hypotheses)
    lengths_B = torch.tensor([len(words) for words in spoken], dtype=torch.int64)
    return WordErrors(edit_distance(spoken, heard), lengths_B)


def _by_rapidfuzz(a: Batch, b: Batch) -> Tensor:
    import numpy
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    device = a.flat_T.device
    a, b = (Batch(batch.flat_T.cpu(), batch.offsets_B1.cpu()) for batch in (a, b))
    strings = as_strings(a, b)
    if strings is None:
        return torch.tensor(_pair_by_pair(a, b), dtype=torch.int64, device=device)
    distances = cpdist(*strings, scorer=Levenshtein.distance, dtype=numpy.int64, workers=torch.get_num_threads())
    return torch.from_numpy(distances).to(device)


def _pair_by_pair(a: Batch, b: Batch) -> list[int]:
    """Compare lists of ranks: for a batch with more different ids than there are code points."""
    from rapidfuzz.distance import Levenshtein

    # ranks, because rapidfuzz goes by Python's hash, and -1 and -2 share theirs
    ranks_T = torch.unique(torch.cat([a.flat_T, b.flat_T]), return_inverse=True)[1]
    sides = [
        [part.tolist() for part in flat_T.split(batch.lengths.tolist())]
        for batch, flat_T in zip((a, b), ranks_T.split([a.flat_T.numel(), b.flat_T.numel()]), strict=True)
    ]
    return [Levenshtein.distance(one, other) for one, other in zip(*sides, strict=True)]
