"""MinHash's Triton kernels in the interpreter: exact, whatever the documents' lengths and the launch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.minhash import (
    FORMULAS,
    Permutations,
    bands,
    fused,
    jaccard,
    permutations,
    shingle_hashes,
    signatures,
)
from tercet_kernels.minhash.reference import shingle_hashes_reference, signatures_reference
from tercet_kernels.ragged import cut_rows


def ragged(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    return torch.randint(-(2**63), 2**63 - 1, (int(offsets[-1]),), generator=generator), offsets


@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=examples(10), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    count=st.sampled_from([1, 16, 64, 128, 256]),
    seed=st.integers(0, 99),
)
def test_signatures_are_exact(formula: str, lengths: list[int], count: int, seed: int) -> None:
    hashes, offsets = ragged(lengths, seed)
    family = permutations(count, seed=seed, formula=formula)
    got = signatures(hashes, offsets, family, path="triton")
    assert got.dtype == family.dtype
    assert torch.equal(got, signatures_reference(hashes, offsets, family))


@pytest.mark.parametrize("formula", ["rensa-v1", "datatrove-64", "datasketch"])
@pytest.mark.parametrize("count", [3, 65, 112, 129])
def test_counts_that_fill_no_block_are_exact(formula: str, count: int) -> None:
    hashes, offsets = ragged([0, 33, 7])
    family = permutations(count, formula=formula)
    got = signatures(hashes, offsets, family, path="triton")
    assert torch.equal(got, signatures_reference(hashes, offsets, family))


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_long_document_in_many_parts_is_exact(formula: str) -> None:
    hashes, offsets = ragged([9000, 2])  # two parts of a round's large launch, nine of a line's
    family = permutations(16, formula=formula)
    got = signatures(hashes, offsets, family, path="triton")
    assert torch.equal(got, signatures_reference(hashes, offsets, family))


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_extreme_hashes_are_exact(formula: str, path: str) -> None:
    # around the Mersenne prime and its multiples, where the fold must subtract; and around the sign
    edges = [0, 1, -1, 2**63 - 1, -(2**63), 2**61 - 1, 2**61, 2**61 - 2, 2**62 - 2, 2**62 - 1]
    hashes, offsets = torch.tensor(edges), torch.arange(len(edges) + 1)
    plain = Permutations(formula, torch.ones(16, dtype=torch.int64), torch.arange(16))
    for constants in (permutations(16, formula=formula), plain):
        got = signatures(hashes, offsets, constants, path=path)
        assert torch.equal(got, signatures_reference(hashes, offsets, constants))


@settings(max_examples=examples(15), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    length=st.sampled_from([1, 2, 5, 7, 8, 9, 16, 17, 24]),
    unit=st.sampled_from([torch.uint8, torch.int64]),
)
def test_shingle_hashes_are_exact(lengths: list[int], length: int, unit: torch.dtype) -> None:
    words, offsets = ragged(lengths)
    units = words.to(unit)
    got = shingle_hashes(units, offsets, length, path="triton")
    for one, other in zip(got, shingle_hashes_reference(units, offsets, length), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("formula", ["rensa-v2", "datatrove-64"])
@pytest.mark.parametrize("count", [4, 256])
def test_agreement_is_the_torch_path(formula: str, count: int) -> None:
    hashes, offsets = ragged([5, 0, 9, 0, 1])
    signed = signatures(torch.cat([hashes, hashes]), torch.cat([offsets[:-1], offsets + 15]), permutations(
        count, formula=formula
    ))  # fmt: skip
    pairs = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    assert torch.equal(jaccard(signed, pairs, path="triton"), jaccard(signed, pairs, path="torch"))
    assert jaccard(signed, bands(signed, 2), path="triton").tolist() == [1.0] * 3


@pytest.mark.parametrize("path", ["torch", "triton"])
def test_signatures_of_nothing_are_all_ones(path: str) -> None:
    empty, offsets = torch.empty(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    assert signatures(empty, offsets, permutations(8), path=path).tolist() == [[2**32 - 1] * 8] * 3
    assert shingle_hashes(empty, offsets, 5, path=path)[1].tolist() == [0] * 4


def test_parts_cover_every_value_once() -> None:
    offsets = torch.tensor([0, 0, 5, 12, 12, 13, 13])
    row, start = cut_rows(offsets, 3)
    assert row.tolist() == [1, 1, 2, 2, 2, 4]
    assert start.tolist() == [0, 3, 5, 8, 11, 12]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (fused.pick_by_length(fused.HASH, 5120, 10), fused.HASH[0]),
        (fused.pick_by_length(fused.HASH, 5121, 10), fused.HASH[1]),
        (fused.pick_by_permutations(64), fused.LINE[1]),
        (fused.pick_by_permutations(65), fused.LINE[0]),
    ],
)
def test_the_launch_follows_the_shapes(chosen: fused.Launch, expected: fused.Launch) -> None:
    assert chosen == expected


def test_every_launch_is_a_variant() -> None:
    variants = fused.variants()
    assert len({variant.name for variant in variants}) == len(variants)
    for variant in variants:
        assert set(variant.signature) | set(variant.constants) == set(variant.kernel.arg_names)
