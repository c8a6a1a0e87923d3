"""Batches of token sequences, and those sequences as strings that rapidfuzz compares.

Shapes: B sequences, T tokens in all of them; a batch is (flat_T, offsets_B1), sequence b being
flat_T[offsets_B1[b] : offsets_B1[b + 1]].
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

FIRST_SURROGATE = 0xD800
NUM_SURROGATES = 0x800  # no string may hold these code points
NUM_CODE_POINTS = 0x110000 - NUM_SURROGATES  # 1,112,064


class Batch(NamedTuple):
    """Token sequences end to end, and where each begins; the last offset is the end."""

    flat_T: Tensor
    offsets_B1: Tensor

    @property
    def lengths(self) -> Tensor:
        """Count each sequence's tokens."""
        return self.offsets_B1.diff()


Tokens = Sequence[Sequence[int]] | tuple[Tensor, Tensor]


def as_batch(tokens: Tokens, name: str) -> Batch:
    """Read lists of token ids, or (flat, offsets), as a batch.

    Raises ValueError where ids aren't integers, or offsets don't climb from 0 to the number of ids.
    """
    if isinstance(tokens, tuple) and len(tokens) == 2 and all(isinstance(part, Tensor) for part in tokens):
        return _checked(Batch(*tokens), name)
    flat, offsets = array("q"), array("q", [0])
    for position, sequence in enumerate(tokens):
        try:
            flat.fromlist(sequence if isinstance(sequence, list) else list(sequence))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"edit_distance: {name}[{position}] isn't a list of 64-bit integers: {error}") from error
        offsets.append(len(flat))
    return Batch(_tensor(flat), _tensor(offsets))


def as_strings(a: Batch, b: Batch) -> tuple[list[str], list[str]] | None:
    """Write each id as a code point, both batches alike; None where the two need more code points than there are.

    Ids keep their order and skip the surrogates. Negative or large ids are numbered anew, by their rank among the
    ids that occur.
    """
    if not (_has_code_points(a.flat_T) and _has_code_points(b.flat_T)):
        distinct_U, rank_T = torch.unique(torch.cat([a.flat_T, b.flat_T]), return_inverse=True)
        if len(distinct_U) > NUM_CODE_POINTS:
            return None
        a, b = (
            Batch(flat_T, batch.offsets_B1)
            for batch, flat_T in zip((a, b), rank_T.split([a.flat_T.numel(), b.flat_T.numel()]), strict=True)
        )
    return _written(a), _written(b)


def _has_code_points(flat_T: Tensor) -> bool:
    if not flat_T.numel():
        return True
    low, high = flat_T.aminmax()
    return int(low) >= 0 and int(high) < NUM_CODE_POINTS


def _written(batch: Batch) -> list[str]:
    flat_T = batch.flat_T
    if not flat_T.numel():
        return [""] * (len(batch.offsets_B1) - 1)
    if int(flat_T.max()) < FIRST_SURROGATE:  # two bytes an id, and no shift: half the time of four
        text = flat_T.to(torch.int16).numpy().astype("<i2", copy=False).tobytes().decode("utf-16-le")
    else:
        points_T = (flat_T + NUM_SURROGATES * (flat_T >= FIRST_SURROGATE)).to(torch.int32)
        text = points_T.numpy().astype("<i4", copy=False).tobytes().decode("utf-32-le")
    return [text[start:end] for start, end in pairwise(batch.offsets_B1.tolist())]


def _tensor(numbers: array[int]) -> Tensor:
    return torch.frombuffer(numbers, dtype=torch.int64) if numbers else torch.empty(0, dtype=torch.int64)


def _checked(batch: Batch, name: str) -> Batch:
    for part, what in zip(batch, ("ids", "offsets"), strict=True):
        if part.dim() != 1 or part.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"edit_distance: the {what} of {name} are {tuple(part.shape)} of {part.dtype}; "
                "give one dimension of int32 or int64"
            )
    ids, offsets = batch.flat_T.numel(), batch.offsets_B1
    if not len(offsets) or int(offsets[0]) != 0 or int(offsets[-1]) != ids or bool((offsets.diff() < 0).any()):
        raise ValueError(f"edit_distance: the offsets of {name} don't climb from 0 to its {ids} ids")
    if batch.flat_T.device != offsets.device:
        raise ValueError(f"edit_distance: {name} has ids on {batch.flat_T.device}, offsets on {offsets.device}")
    return Batch(batch.flat_T, offsets.long())
