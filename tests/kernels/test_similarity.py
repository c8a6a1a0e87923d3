"""Similarity of rows: every path against fp64, and low precision that never decides."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.similarity import earlier_max, pairs_above
from tercet_kernels.similarity.blockwise import find_pairs, propose_max
from tercet_kernels.similarity.reference import cosines_reference, earlier_max_reference, pairs_above_reference
from tercet_kernels.similarity.rows import OPERAND_ROUNDING, band_of_torch

PATHS = ("torch", "triton")
ROUNDING = 2.0**-23  # values are rounded once to fp32


def random_rows(rows, features, seed=0, dtype=torch.float32):
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed)).to(dtype)


def clustered_rows(rows, features, seed=0):
    """Give rows with cosines from -1 to 1: each is noise of its own strength about one of four centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, features, generator=generator)
    strength = torch.rand(rows, 1, generator=generator)
    noise = torch.randn(rows, features, generator=generator)
    return centres[torch.randint(4, (rows,), generator=generator)] + strength * noise


def assert_nearest(x, got, band):
    """Hold each named row's exact cosine against the value, and the value against the largest there is."""
    values, index = got
    assert (values.dtype, index.dtype) == (torch.float32, torch.int64)
    if not len(x):
        return
    expected, _ = earlier_max_reference(x)
    assert (values[0], index[0]) == (-math.inf, -1)
    rows = torch.arange(1, len(x))
    assert bool((index[1:] < rows).all() & (index[1:] >= 0).all())
    named = cosines_reference(x)[rows, index[1:]]
    torch.testing.assert_close(values[1:].double(), named, rtol=0, atol=ROUNDING)
    assert bool((values[1:] >= expected[1:] - 2 * band - ROUNDING).all())


@given(rows=st.integers(0, 70), features=st.integers(1, 40), block_rows=st.integers(1, 80), seed=st.integers(0, 9))
@settings(max_examples=examples(25), deadline=None)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_torch_names_the_nearest_earlier_row(dtype, rows, features, block_rows, seed) -> None:
    x = random_rows(rows, features, seed, dtype)
    got = earlier_max(x, path="torch", block_rows=block_rows)
    assert_nearest(x, got, band_of_torch(x.float()))


@given(rows=st.integers(1, 150), features=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=examples(8, 100), deadline=None)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_kernel_names_the_nearest_earlier_row(dtype, rows, features, seed) -> None:
    x = random_rows(rows, features, seed, dtype)
    assert_nearest(x, earlier_max(x, path="triton"), 1e-6)


@given(rows=st.integers(0, 60), block_rows=st.integers(1, 70), threshold=st.floats(-0.2, 1.0), seed=st.integers(0, 9))
@settings(max_examples=examples(25), deadline=None)
def test_torch_finds_the_very_pairs_of_fp64(rows, block_rows, threshold, seed) -> None:
    x = clustered_rows(rows, 12, seed)
    pairs, values = pairs_above(x, threshold, path="torch", block_rows=block_rows)
    expected, cosines = pairs_above_reference(x, threshold)
    assert torch.equal(pairs, expected)
    torch.testing.assert_close(values.double(), cosines, rtol=0, atol=ROUNDING)


@given(rows=st.integers(0, 130), threshold=st.floats(0.3, 1.0), seed=st.integers(0, 9))
@settings(max_examples=examples(8, 100), deadline=None)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_kernel_finds_the_very_pairs_of_fp64(dtype, rows, threshold, seed) -> None:
    x = clustered_rows(rows, 40, seed).to(dtype)
    assert torch.equal(pairs_above(x, threshold, path="triton")[0], pairs_above_reference(x, threshold)[0])


def test_both_paths_give_the_same_bits() -> None:
    x = clustered_rows(90, 24)
    for one, other in zip(pairs_above(x, 0.8, path="torch"), pairs_above(x, 0.8, path="triton"), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(earlier_max(x, path="torch"), earlier_max(x, path="triton"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("normalise", [True, False])
def test_copies_are_found_and_name_the_first(path, normalise) -> None:
    x = random_rows(140, 33)
    copies = {70: 3, 90: 3, 139: 3, 8: 7, 9: 7, 100: 99}
    for copy, original in copies.items():
        x[copy] = x[original]
    x = x / x.norm(dim=1, keepdim=True)
    values, index = earlier_max(x, path=path, normalise=normalise)
    assert {copy: int(index[copy]) for copy in copies} == copies
    assert [float(values[copy]) for copy in copies] == pytest.approx([1.0] * len(copies), abs=0 if normalise else 1e-6)
    pairs, _ = pairs_above(x, 1.0 if normalise else 0.999, path=path, normalise=normalise)
    expected = [[3, 70], [3, 90], [3, 139], [7, 8], [7, 9], [8, 9], [70, 90], [70, 139], [90, 139], [99, 100]]
    assert pairs.tolist() == expected


def test_a_later_copy_that_the_fast_pass_proposed_gives_way_to_the_first() -> None:
    from tercet_kernels.similarity.decide import settle_max

    x = random_rows(6, 5)
    x[1] = x[3] = x[4] = x[0]
    values, index = settle_max(x, torch.tensor([-1, 0, 0, 1, 3, 4]), normalise=True)
    assert index.tolist() == [-1, 0, 0, 0, 0, 0]
    assert values[4] == 1.0


@pytest.mark.parametrize("path", PATHS)
def test_rows_in_another_order_make_the_same_pairs(path) -> None:
    x = clustered_rows(80, 16)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    straight = {frozenset(pair) for pair in pairs_above(x, 0.9, path=path)[0].tolist()}
    shuffled = {frozenset(order[list(pair)].tolist()) for pair in pairs_above(x[order], 0.9, path=path)[0].tolist()}
    assert straight == shuffled
    assert straight


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [1e-30, 1e18, 3e37], ids=str)
def test_long_and_short_rows_are_compared_by_direction(path, scale) -> None:
    x = clustered_rows(50, 16)
    stretched = x * torch.where(torch.arange(50) % 2 == 0, scale, 1.0)[:, None]
    found = {frozenset(pair) for pair in pairs_above(x, 0.9, path=path)[0].tolist()}
    assert {frozenset(pair) for pair in pairs_above(stretched, 0.9, path=path)[0].tolist()} == found


def test_fp16_rows_at_the_edge_of_fp16_do_not_overflow() -> None:
    x = (clustered_rows(50, 16).sign() * 60000).half()
    assert_nearest(x, earlier_max(x, path="triton"), 1e-6)


def cut(units_ND, bits):
    """Cut the last `bits` off each fp32 mantissa, as tensor cores may: 13 for TF32, 16 for bf16."""
    return (units_ND.view(torch.int32) & (-1 << bits)).view(torch.float32)


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 13), ("bf16", 16)])
def test_low_precision_proposes_and_never_decides(precision, bits) -> None:
    x = clustered_rows(200, 64)
    units = x / x.norm(dim=1, keepdim=True)
    _, cosines = pairs_above_reference(x, -1.0)
    threshold = float(cosines.sort().values[-4000])  # a cosine that occurs, with thousands on either side
    expected, _ = pairs_above_reference(x, threshold - 1e-12)
    band = band_of_torch(units) + OPERAND_ROUNDING[precision]
    settled, _ = find_pairs(x, cut(units, bits), threshold - 1e-12, band, 64, normalise=True)
    assert torch.equal(settled, expected)
    hasty, _ = find_pairs(x, cut(units, bits), threshold - 1e-12, 0.0, 64, normalise=True)
    assert len(hasty) < len(expected), "the cut rows must lose pairs without the band, or this test shows nothing"


@given(rows=st.integers(2, 40), features=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=examples(25), deadline=None)
def test_no_dot_product_is_off_by_more_than_the_band(rows, features, seed) -> None:
    x = random_rows(rows, features, seed)
    units = x / x.norm(dim=1, keepdim=True)
    exact = cosines_reference(x)
    for precision, bits in (("ieee", 0), ("tf32", 13), ("bf16", 16)):
        low = cut(units, bits)
        assert float((low @ low.T - exact).abs().max()) <= band_of_torch(units) + OPERAND_ROUNDING[precision]


def test_a_setting_that_allows_tf32_widens_the_band() -> None:
    x = random_rows(4, 8)
    narrow = band_of_torch(x)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert band_of_torch(x) == narrow + OPERAND_ROUNDING["bf16"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_first_of_equal_dot_products_is_proposed() -> None:
    units = torch.eye(4)[[0, 1, 0, 0, 1]]
    assert propose_max(units, block_rows=2).tolist() == [-1, 0, 0, 0, 1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("operator", [earlier_max, lambda x, **more: pairs_above(x, 0.5, **more)])
@pytest.mark.parametrize(
    ("row", "fault", "more", "complaint"),
    [
        (5, math.nan, {}, "row 5 holds NaN or infinity"),
        (2, math.inf, {}, "row 2 holds NaN or infinity"),
        (7, 0.0, {}, "row 7 has length 0, so no direction"),
        (3, 2.0, {"normalise": False}, "row 3 has length 5.65685, not 1; pass normalise=True"),
        (3, math.nan, {"normalise": False}, "row 3 holds NaN"),
    ],
)
def test_a_row_without_direction_is_named(path, operator, row, fault, more, complaint) -> None:
    x = torch.nn.functional.normalize(random_rows(9, 8), dim=1)
    x[row] = fault
    with pytest.raises(ValueError, match=complaint):
        operator(x, path=path, **more)


@pytest.mark.parametrize(
    ("x", "more", "complaint"),
    [
        (torch.ones(3), {}, r"x has shape \(3,\); give rows by features"),
        (torch.ones(3, 0), {}, r"x has shape \(3, 0\)"),
        (torch.ones(3, 2).int(), {}, "x is torch.int32; give floating point"),
        (torch.ones(3, 2), {"block_rows": 0}, "block_rows is 0; give at least 1"),
        (torch.ones(3, 2), {"path": "cuda"}, "path is 'cuda'; choose from"),
        (torch.ones(3, 2).double(), {"path": "triton"}, "float64 has no kernel"),
        (torch.ones(1, 1).expand(2**31, 1), {}, "x has 2147483648 rows; 2147479552 at most"),
    ],
)
def test_a_faulty_argument_is_named(x, more, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        earlier_max(x, **more)


@pytest.mark.parametrize("threshold", [-1.5, 1.1, math.nan])
def test_a_threshold_that_no_cosine_reaches_is_refused(threshold) -> None:
    with pytest.raises(ValueError, match="a cosine lies between -1 and 1"):
        pairs_above(torch.ones(2, 2), threshold)


def assert_exact_at(rows: int) -> None:
    """Hold all pairs over 0.8 against fp64, but those within 1e-6 of it, which count on neither side."""
    x = clustered_rows(rows, 64, seed=3)
    pairs, _ = pairs_above(x, 0.8)
    found = torch.zeros(rows, dtype=torch.int64)
    units = x.double() / x.double().norm(dim=1, keepdim=True)
    start = 0
    for row in range(0, rows, 500):
        cosines = (units[row : row + 500] @ units.T).triu(row + 1)
        is_clear = (cosines - 0.8).abs() > 1e-6
        expected = ((cosines > 0.8) & is_clear).nonzero() + torch.tensor([row, 0])
        end = int(torch.searchsorted(pairs[:, 0].contiguous(), row + 500))
        ours = pairs[start:end]
        assert torch.equal(ours[is_clear[ours[:, 0] - row, ours[:, 1]]], expected)
        found[row : row + 500] += len(expected)
        start = end
    assert found.sum() > rows


def test_pairs_of_4000_rows_are_those_of_fp64() -> None:
    assert_exact_at(4000)


@pytest.mark.slow
def test_pairs_of_20000_rows_are_those_of_fp64() -> None:
    assert_exact_at(20000)
