"""MinHash against the libraries whose formulas it names, against its definition, and against true similarities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rensa
import torch
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.minhash import (
    FORMULAS,
    Permutations,
    bands,
    jaccard,
    near_duplicates,
    permutations,
    shingle_hashes,
    signatures,
    signatures_of_texts,
)
from tercet_kernels.minhash import host as host_module
from tercet_kernels.minhash.reference import shingle_hashes_reference, signatures_reference

MERSENNE = np.uint64((1 << 61) - 1)
LENGTHS = [0, 1, 5, 40, 0, 200, 700, 0]


def ragged(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *np.cumsum(lengths, dtype=np.int64)])
    return torch.randint(-(2**63), 2**63 - 1, (int(offsets[-1]),), generator=generator), offsets


def ragged_bytes(texts: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    offsets = torch.tensor([0, *np.cumsum([len(text) for text in texts], dtype=np.int64)])
    return torch.tensor(list(b"".join(texts)), dtype=torch.uint8), offsets


def as_numpy(words: torch.Tensor) -> np.ndarray:
    return words.numpy().view(np.uint64)


def test_rensa_v1_gives_the_golden_vector_of_rensas_own_test() -> None:
    # crates/rensa-core/src/rminhash.rs at de5a1fe, digest_prehashed_matches_golden_vector
    golden = [
        571_772_611, 936_133_835, 752_080_753, 481_772_021, 45_178_047, 175_317_472, 470_513_164, 928_706_636,
        766_355_169, 186_861_125, 104_841_669, 219_275_888, 723_396_917, 903_182_598, 455_784_955, 153_681_280,
    ]  # fmt: skip
    hashes, offsets = torch.tensor([1, 2, 3, 10, 20, 30, 999]), torch.tensor([0, 7])
    family = permutations(16, seed=42, formula="rensa-v1")
    assert signatures(hashes, offsets, family).tolist() == [golden]


@pytest.mark.parametrize("count", [1, 2, 16, 128, 256])
@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1])
def test_the_definition_of_rensa_v2_is_what_rensa_computes(count: int, seed: int) -> None:
    hashes, offsets = ragged(LENGTHS)
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        as_numpy(hashes), as_numpy(offsets), count, seed
    ).to_rows()
    assert signatures_reference(hashes, offsets, permutations(count, seed=seed)).tolist() == digests


@pytest.mark.parametrize("wide", [True, False], ids=["64", "32"])
def test_datatrove_is_its_line_of_numpy(wide: bool) -> None:
    hashes, offsets = ragged([300])
    # datatrove, pipeline/dedup/minhash.py: MinhashDedupSignature.parameters and get_signature
    generator = np.random.RandomState(1)
    a = generator.randint(1, MERSENNE, dtype=np.uint64, size=(1, 112))
    b = generator.randint(0, MERSENNE, dtype=np.uint64, size=(1, 112))
    values = (as_numpy(hashes).reshape(-1, 1) * a + b) % MERSENNE
    if not wide:
        values = np.bitwise_and(values, np.uint64((1 << 32) - 1))
    family = permutations(112, seed=1, formula="datatrove-64" if wide else "datatrove-32")
    assert signatures(hashes, offsets, family)[0].tolist() == values.min(0).tolist()


def test_datasketch_legacy_gives_the_same_values() -> None:
    hashes, offsets = ragged([100])
    hashes &= 0xFFFFFFFF  # datasketch takes 32-bit hashes
    theirs = MinHash(num_perm=64, seed=3, hashfunc=lambda value: value, scheme="legacy")
    theirs.update_batch(hashes.tolist())
    ours = signatures(hashes, offsets, permutations(64, seed=3, formula="datasketch"))
    assert ours[0].tolist() == theirs.hashvalues.tolist()


@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=examples(10), deadline=None)
@given(lengths=st.lists(st.integers(0, 600), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_the_host_path_is_the_definition(formula: str, lengths: list[int], seed: int) -> None:
    hashes, offsets = ragged(lengths, seed)
    family = permutations(32, seed=seed, formula=formula)
    assert torch.equal(signatures(hashes, offsets, family, path="torch"), signatures_reference(hashes, offsets, family))


def test_rensa_in_blocks_gives_every_document_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "BLOCK_DOCUMENTS", 3)
    hashes, offsets = ragged(LENGTHS)
    family = permutations(16)
    assert torch.equal(signatures(hashes, offsets, family), signatures_reference(hashes, offsets, family))


def test_without_a_fitting_rensa_the_definition_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, offsets = ragged(LENGTHS)
    family = permutations(16)
    expected = signatures(hashes, offsets, family)
    monkeypatch.setattr(rensa.RMinHash, "digest_matrix_from_flat_token_hashes", None)
    monkeypatch.setattr(host_module, "rensa_fits", lambda: False)
    assert torch.equal(signatures(hashes, offsets, family), expected)


def test_constants_of_your_own_go_round_rensa() -> None:
    drawn = permutations(16, seed=9)
    hashes, offsets = ragged(LENGTHS)
    own = Permutations("rensa-v2", drawn.factor_P, drawn.term_P)
    assert torch.equal(signatures(hashes, offsets, own), signatures(hashes, offsets, drawn))


@settings(max_examples=examples(25), deadline=None)
@given(
    texts=st.lists(st.binary(max_size=40), min_size=1, max_size=5), length=st.integers(1, 20), are_words=st.booleans()
)
def test_shingles_on_the_host_are_the_definition(texts: list[bytes], length: int, are_words: bool) -> None:
    units, offsets = ragged_bytes(texts)
    units = units.long() - 128 if are_words else units
    for got, expected in zip(
        shingle_hashes(units, offsets, length, path="torch"),
        shingle_hashes_reference(units, offsets, length),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_shingles_across_a_block_are_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "BLOCK_UNITS", 7)
    units, offsets = ragged_bytes([bytes(range(50)), b"", bytes(range(9))])
    got, _ = shingle_hashes(units, offsets, 5, path="torch")
    assert torch.equal(got, shingle_hashes_reference(units, offsets, 5)[0])


def test_equal_shingles_have_equal_hashes_wherever_they_stand() -> None:
    units, offsets = ragged_bytes([b"abcdef", b"xxabcdexx"])
    hashes, edges = shingle_hashes(units, offsets, 5)
    assert edges.tolist() == [0, 2, 7]
    assert hashes[0] == hashes[4]
    assert len(hashes.unique()) == 6


def test_padding_and_length_are_part_of_a_shingles_hash() -> None:
    units, offsets = ragged_bytes([b"ab\0"])
    three, two = shingle_hashes(units, offsets, 3)[0], shingle_hashes(units, offsets, 2)[0]
    assert three[0] not in two


def test_shingles_of_words_depend_on_their_order() -> None:
    words, offsets = torch.tensor([1, 2, 3, 3, 2, 1]), torch.tensor([0, 3, 6])
    hashes, _ = shingle_hashes(words, offsets, 3)
    assert hashes[0] != hashes[1]


def test_a_bit_of_a_byte_flips_half_of_its_hash() -> None:
    units = torch.randint(0, 256, (4000,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = torch.tensor([0, 4000])
    one = as_numpy(shingle_hashes(units, whole, 5)[0])
    other = as_numpy(shingle_hashes(units ^ 1, whole, 5)[0])
    flipped = np.unpackbits((one ^ other).view(np.uint8)).mean()
    # 256,000 fair coins: the standard error of their mean is 0.001
    assert abs(flipped - 0.5) < 0.005


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_estimates_lie_within_four_standard_errors(formula: str, similarity: float) -> None:
    count, union = 256, 400
    shared = round(similarity * union)
    rest = (union - shared) // 2
    generator = torch.Generator().manual_seed(round(similarity * 100))
    universe = torch.randint(-(2**63), 2**63 - 1, (shared + 2 * rest,), generator=generator)
    hashes = torch.cat([universe[: shared + rest], universe[:shared], universe[shared + rest :]])
    signed = signatures(hashes, torch.tensor([0, shared + rest, len(hashes)]), permutations(count, formula=formula))
    true = shared / (shared + 2 * rest)
    estimate = float(jaccard(signed, torch.tensor([[0, 1]]))[0])
    assert abs(estimate - true) <= 4 * math.sqrt(true * (1 - true) / count)


def test_estimates_are_unbiased() -> None:
    count, pairs = 64, 400
    hashes = torch.randint(-(2**63), 2**63 - 1, (pairs, 90), generator=torch.Generator().manual_seed(5))
    both = torch.cat([hashes[:, :60], hashes[:, 30:]]).contiguous()  # J = 30 / 90
    signed = signatures(both.flatten(), torch.arange(2 * pairs + 1) * 60, permutations(count))
    estimates = jaccard(signed, torch.stack([torch.arange(pairs), torch.arange(pairs) + pairs], dim=1))
    assert abs(float(estimates.mean()) - 1 / 3) <= 4 * math.sqrt(2 / 9 / count / pairs)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_document_without_shingles_has_all_ones_and_no_candidates(formula: str) -> None:
    hashes, offsets = ragged([0, 3, 0, 0])
    signed = signatures(hashes, offsets, permutations(16, formula=formula))
    ones = 2**64 - 1 if formula == "datatrove-64" else 2**32 - 1
    assert signed[0].tolist() == [ones] * 16
    assert bands(signed, 4).tolist() == []
    assert bands(signed, 4, with_empty=True).tolist() == [[0, 2], [0, 3], [2, 3]]
    assert jaccard(signed, torch.tensor([[0, 2]])).tolist() == [1.0]


@pytest.mark.parametrize("num_bands", [1, 4, 16])
def test_candidates_are_the_pairs_that_share_a_band(num_bands: int) -> None:
    signed = torch.randint(0, 3, (60, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint32)
    words = signed.long().reshape(60, num_bands, -1)
    shares = (words[:, None] == words[None]).all(3).any(2).triu(1)
    assert torch.equal(bands(signed, num_bands), shares.nonzero())


def test_near_duplicates_are_found_by_their_text() -> None:
    texts = ["the pharmacist fills the prescription " * 4, "", "an entirely different sentence about the weather", ""]
    texts += [texts[0] + "today", "a", texts[2]]
    pairs, similarity = near_duplicates(signatures_of_texts(texts, permutations(128)), num_bands=16, threshold=0.8)
    assert pairs.tolist() == [[0, 4], [2, 6]]
    assert 0.8 <= float(similarity[0]) < 1
    assert float(similarity[1]) == 1


def test_a_batch_of_no_documents_is_no_error() -> None:
    signed = signatures_of_texts([], permutations(16))
    assert signed.shape == (0, 16)
    assert bands(signed, 4).shape == (0, 2)
    assert jaccard(signed, torch.empty(0, 2, dtype=torch.int64)).shape == (0,)
    assert signatures_of_texts(["", ""], permutations(16)).shape == (2, 16)


HASHES, OFFSETS = torch.arange(6), torch.tensor([0, 2, 6])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutations(0), "permutations: count is 0; give at least 1"),
        (lambda: permutations(8, formula="md5"), "permutations: formula is 'md5'; choose from rensa-v2, "),
        (lambda: permutations(12), "minhash: rensa-v2 with 12 permutations; give a power of two"),
        (lambda: Permutations("sha", HASHES, HASHES), "minhash: formula is 'sha'"),
        (lambda: Permutations("rensa-v1", HASHES, HASHES[:3]), "minhash: 6 factors but 3 terms"),
        (lambda: Permutations("rensa-v1", HASHES.int(), HASHES), "minhash: factor_P is torch.int32"),
        (lambda: signatures(HASHES.float(), OFFSETS, permutations(8)), "minhash: hashes are torch.float32; give 64"),
        (lambda: signatures(HASHES, OFFSETS.int(), permutations(8)), "signatures: offsets have shape (3,) and dtype"),
        (lambda: signatures(HASHES, OFFSETS[:2], permutations(8)), "signatures: offsets run from 0 to 2; there are 6"),
        (lambda: signatures(HASHES, OFFSETS[1:], permutations(8)), "signatures: offsets run from 2 to 6; there are 6"),
        (lambda: signatures(HASHES, torch.tensor([0, 4, 2, 6]), permutations(8)), "offsets fall after row 1; sort"),
        (lambda: signatures(HASHES[None], OFFSETS, permutations(8)), "signatures: the values have shape (1, 6)"),
        (lambda: shingle_hashes(HASHES, OFFSETS, 0), "shingle_hashes: length is 0; choose 1 to 64"),
        (lambda: shingle_hashes(HASHES, OFFSETS, 65), "shingle_hashes: length is 65; choose 1 to 64"),
        (lambda: bands(HASHES.view(2, 3), 1), "bands: signatures are torch.int64 of shape (2, 3); give what"),
        (lambda: bands(signed_copies(3), 3), "bands: num_bands is 3; give a divisor of the 8 permutations"),
        (lambda: bands(signed_copies(9), 2, most_pairs=35), "bands: 36 pairs share one band, 9 documents the largest"),
        (lambda: jaccard(signed_copies(3), HASHES.view(3, 2)), "jaccard: pairs name documents 0 to 5; there are 3"),
        (lambda: jaccard(signed_copies(3), HASHES), "jaccard: pairs are torch.int64 of shape (6,); give int64, K x 2"),
    ],
)
def test_a_wrong_argument_is_named(call, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert message in str(caught.value)


def signed_copies(count: int) -> torch.Tensor:
    return torch.arange(8).to(torch.uint32).expand(count, 8)
