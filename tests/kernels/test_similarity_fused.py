"""The similarity kernels' own parts: tiles by number, a buffer that overflows, launches cut in stretches."""

from __future__ import annotations

import math
import random

import pytest
import torch
import triton
import triton.language as tl

from tercet_kernels.similarity import fused
from tercet_kernels.similarity.blockwise import propose_max
from tercet_kernels.similarity.fused import (
    CONFIGS,
    Tiles,
    find_pairs_fused,
    pick,
    propose_max_fused,
    triangle_position,
    triangle_row,
)
from tercet_kernels.similarity.reference import pairs_above_reference

TINY = Tiles(block=16, block_d=16, group=2, num_warps=1, num_stages=1)


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def positions_kernel(place_ptr, i_ptr, j_ptr, mended_ptr, error, COUNT: tl.constexpr):
    offset = tl.arange(0, COUNT)
    place = tl.load(place_ptr + offset)
    i, j = triangle_position(place)
    tl.store(i_ptr + offset, i)
    tl.store(j_ptr + offset, j)
    tl.store(mended_ptr + offset, triangle_row(place, i + error))


def by_integers(place: int) -> tuple[int, int]:
    i = (math.isqrt(8 * place + 1) - 1) // 2
    return i, place - i * (i + 1) // 2


@pytest.mark.parametrize("error", [-1, 0, 1])
def test_a_tile_s_place_is_exact_far_past_2_to_the_31(error) -> None:
    source = random.Random(0)
    # where the root is hardest: the last tile of a row and the first of the next
    sides = [1, 2, 3, 4095, 65535, 65536, 2**20 + 1, 2**24 + 1, 2**25 - 1] + [
        source.randrange(2**25) for _ in range(90)
    ]
    places = [side * (side + 1) // 2 + step for side in sides for step in (-1, 0, 1)]
    places += [2**31 - 1, 2**31, 2**31 + 1, 2**24, 2**24 + 1] + [source.randrange(2**31) for _ in range(200)]
    places = [place for place in places if place >= 0]
    count = 1 << len(places).bit_length()
    place = torch.tensor(places + [0] * (count - len(places)))
    i, j, mended = torch.empty_like(place), torch.empty_like(place), torch.empty_like(place)
    positions_kernel[(1,)](place, i, j, mended, error, COUNT=count)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [by_integers(p) for p in place.tolist()]
    assert torch.equal(mended, i), "a root that is 1 off is mended"


def unit_rows(rows, features, seed=0):
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 31, 32, 33, 65])
@pytest.mark.parametrize("features", [1, 16, 17])
def test_every_tile_of_the_triangle_is_visited_once(rows, features) -> None:
    x = unit_rows(rows, features)
    got = propose_max_fused(x, torch.ones(rows), TINY)
    if features > 1:  # one feature: every cosine is 1 or -1, and rounding breaks the ties
        assert torch.equal(got, propose_max(x, 1024))
    pairs, _ = find_pairs_fused(x, x, torch.ones(rows), -1.0, normalise=True, tiles=TINY)
    assert pairs.tolist() == [[one, other] for one in range(rows) for other in range(one + 1, rows)]


def test_a_buffer_that_overflows_loses_no_pair() -> None:
    x = unit_rows(150, 16)
    launches = []
    kernel = fused.pairs_above_kernel

    class Counting:
        def __getitem__(self, grid):
            launches.append(grid)
            return kernel[grid]

    fused.pairs_above_kernel = Counting()
    try:
        got, _ = find_pairs_fused(x, x, torch.ones(150), -0.5, normalise=True, tiles=TINY, capacity=1)
    finally:
        fused.pairs_above_kernel = kernel
    assert torch.equal(got, pairs_above_reference(x, -0.5)[0])
    assert len(got) > 5 * TINY.super_pairs, "the buffer must overflow, or this test shows nothing"
    assert len(launches) > 2


def test_launches_cut_in_stretches_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(100, 16)
    whole = propose_max_fused(x, torch.ones(100), TINY)
    pairs, _ = find_pairs_fused(x, x, torch.ones(100), 0.3, normalise=True, tiles=TINY)
    monkeypatch.setattr(fused, "MOST_PROGRAMS", 8)
    monkeypatch.setattr(fused, "PAIRS_PROGRAMS", 8)
    assert torch.equal(propose_max_fused(x, torch.ones(100), TINY), whole)
    assert torch.equal(find_pairs_fused(x, x, torch.ones(100), 0.3, normalise=True, tiles=TINY)[0], pairs)


def test_negative_cosines_of_different_tiles_are_ordered_too() -> None:
    far, near = [-0.9, 0.43588989], [-0.5, 0.8660254]
    x = torch.tensor([far] * TINY.block + [near] * TINY.block + [[1.0, 0.0]])
    assert propose_max_fused(x, torch.ones(len(x)), TINY)[-1] == TINY.block


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("tiles", CONFIGS, ids=lambda tiles: f"{tiles.block}x{tiles.block_d}")
def test_each_shipped_configuration_is_right(tiles, dtype) -> None:
    x = unit_rows(200, 40).to(dtype)
    assert torch.equal(propose_max_fused(x, torch.ones(200), tiles), propose_max(x.float(), 1024))


def test_what_is_picked_ships() -> None:
    for rows in (1, 2048, 2049, 10**6):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for sharp in (True, False):
                assert pick(rows, dtype, is_sharp=sharp) in CONFIGS
