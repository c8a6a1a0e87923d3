"""The edit-distance kernel compiled: bounds and races, on a GPU or under ttsem."""

from __future__ import annotations

import random

import pytest
import torch

from tercet_kernels.edit_distance import edit_distance
from tercet_kernels.edit_distance.reference import distance_reference

LENGTHS = [(0, 0), (0, 3), (4, 0), (5, 7), (31, 9), (32, 32), (33, 40), (130, 5), (129, 131)]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("count", [1, 4, len(LENGTHS)])
def test_distances_are_those_of_the_definition(device, dtype, count) -> None:
    source = random.Random(count)
    pairs = [tuple([source.randrange(-2, 3) for _ in range(n)] for n in lengths) for lengths in LENGTHS[-count:]]
    sides = [
        (
            torch.tensor([token for pair in pairs for token in pair[side]], dtype=dtype, device=device),
            torch.tensor([0, *(len(pair[side]) for pair in pairs)], device=device).cumsum(0),
        )
        for side in (0, 1)
    ]
    got = edit_distance(*sides, path="triton")
    assert got.device.type == "cuda"
    assert got.tolist() == [distance_reference(*pair) for pair in pairs]
