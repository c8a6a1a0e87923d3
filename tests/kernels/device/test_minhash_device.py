"""MinHash on a device: exact against the definition, within bounds, and the same whatever order programs run in."""

from __future__ import annotations

import pytest
import torch

from tercet_kernels.minhash import FORMULAS, jaccard, permutations, shingle_hashes, signatures
from tercet_kernels.minhash.reference import shingle_hashes_reference, signatures_reference

# empty at both ends and inside, one shingle, a block and one more, two parts of the smallest launch
LENGTHS = [0, 1, 3, 0, 32, 33, 257, 0]
LONG = [1100, 0, 2]
PAIRED = [300, 300, 0]  # two parts each, and rounds of 256 permutations that leave some over


def ragged(lengths: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    hashes = torch.randint(-(2**63), 2**63 - 1, (int(offsets[-1]),), generator=generator)
    return hashes.to(device), offsets.to(device)


@pytest.mark.parametrize("lengths", [LENGTHS, LONG], ids=["short", "long"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_signatures_are_exact(formula: str, lengths: list[int], device: torch.device) -> None:
    hashes, offsets = ragged(lengths, device)
    family = permutations(16, formula=formula)
    got = signatures(hashes, offsets, family, path="triton")
    assert torch.equal(got.cpu(), signatures_reference(hashes.cpu(), offsets.cpu(), family))


def test_rounds_of_a_document_in_parts_are_exact(device: torch.device) -> None:
    hashes, offsets = ragged(PAIRED, device)
    got = signatures(hashes, offsets, permutations(256), path="triton")
    assert torch.equal(got.cpu(), signatures_reference(hashes.cpu(), offsets.cpu(), permutations(256)))


@pytest.mark.parametrize("length", [1, 5, 9])
@pytest.mark.parametrize("unit", [torch.uint8, torch.int64], ids=str)
def test_shingle_hashes_are_exact(unit: torch.dtype, length: int, device: torch.device) -> None:
    words, offsets = ragged(LENGTHS, device)
    units = words.cpu().to(unit)
    got = shingle_hashes(units.to(device), offsets, length, path="triton")
    expected = shingle_hashes_reference(units, offsets.cpu(), length)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("formula", ["rensa-v2", "datatrove-64"])
def test_agreement_counts_equal_permutations(formula: str, device: torch.device) -> None:
    hashes, offsets = ragged(LENGTHS, device)
    signed = signatures(hashes, offsets, permutations(16, formula=formula), path="triton")
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))[:61].to(device)
    words = signed.cpu().to(torch.int64)
    expected = (words[pairs[:, 0].cpu()] == words[pairs[:, 1].cpu()]).float().mean(1)
    assert torch.equal(jaccard(signed, pairs, path="triton").cpu(), expected)
