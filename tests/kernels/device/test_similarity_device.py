"""The similarity kernels compiled: bf16, bounds and races, on a GPU or under ttsem."""

from __future__ import annotations

import pytest
import torch

from tercet_kernels.similarity import earlier_max, pairs_above
from tercet_kernels.similarity.fused import Tiles, find_pairs_fused, propose_max_fused
from tercet_kernels.similarity.reference import earlier_max_reference, pairs_above_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TINY = Tiles(block=16, block_d=16, group=2, num_warps=4, num_stages=2)


def rows_on(device, rows, features, dtype):
    generator = torch.Generator().manual_seed(rows + features)
    centres = torch.randn(4, features, generator=generator)
    noise = torch.randn(rows, features, generator=generator)
    return (centres[torch.arange(rows) % 4] + 0.5 * noise).to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "features"), [(1, 1), (17, 5), (70, 40), (130, 64)])
def test_pairs_are_those_of_fp64(device, dtype, rows, features) -> None:
    x = rows_on(device, rows, features, dtype)
    # rows of one centre have cosines about 0.8: many pairs are so near that a bf16 rounding would lose some
    expected, _ = pairs_above_reference(x.cpu(), 0.8)
    assert torch.equal(pairs_above(x, 0.8, path="triton")[0].cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "features"), [(1, 1), (17, 5), (70, 40)])
def test_the_nearest_earlier_row_is_named(device, dtype, rows, features) -> None:
    x = rows_on(device, rows, features, dtype)
    values, index = (part.cpu() for part in earlier_max(x, path="triton"))
    expected, _ = earlier_max_reference(x.cpu())
    assert index[0] == -1
    # fp32 sums of at most 64 products and a few bits that tensor cores cut
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=2e-5)


def test_copies_name_the_first_in_bf16(device) -> None:
    x = rows_on(device, 80, 32, torch.bfloat16)
    x[79] = x[40] = x[5]
    values, index = earlier_max(x, path="triton")
    assert index[[40, 79]].tolist() == [5, 5]
    assert values[[40, 79]].tolist() == [1.0, 1.0]


def test_small_tiles_and_a_full_buffer_stay_in_bounds(device) -> None:
    x = torch.nn.functional.normalize(rows_on(device, 70, 20, torch.float32), dim=1)
    ones = torch.ones(70, device=device)
    pairs, _ = find_pairs_fused(x, x, ones, -1.0, normalise=False, tiles=TINY, capacity=1)
    assert len(pairs) == 70 * 69 // 2
    assert bool((propose_max_fused(x, ones, TINY)[1:] >= 0).all())
