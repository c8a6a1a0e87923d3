"""Edit distances: every path against the definition, words against jiwer."""

from __future__ import annotations

import random

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.edit_distance import edit_distance, fused, tokens, word_errors
from tercet_kernels.edit_distance.fused import CONFIGS, pick
from tercet_kernels.edit_distance.reference import distance_reference

PATHS = ("torch", "triton")
AWKWARD = [0, 1, 2, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0x10F7FF]
SMALL_IDS = st.sampled_from(AWKWARD)
ANY_IDS = st.one_of(SMALL_IDS, st.sampled_from([-1, -2, 0x10F800, 0x110000, 2**31, 2**61 - 1, 2**63 - 1, -(2**63)]))


def pairs_of(ids, longest):
    sequence = st.lists(ids, max_size=longest)
    return st.lists(st.tuples(sequence, sequence), max_size=6)


def sides(pairs):
    return [a for a, _ in pairs], [b for _, b in pairs]


def by_definition(pairs):
    return [distance_reference(a, b) for a, b in pairs]


def random_pairs(lengths, seed=0, vocabulary=4):
    source = random.Random(seed)
    return [tuple([source.randrange(vocabulary) for _ in range(n)] for n in pair) for pair in lengths]


def test_the_definition_knows_the_textbook_s_distances() -> None:
    words = [("kitten", "sitting", 3), ("intention", "execution", 5), ("", "abc", 3), ("abc", "", 3), ("", "", 0)]
    for a, b, distance in words:
        assert distance_reference([ord(letter) for letter in a], [ord(letter) for letter in b]) == distance


@given(pairs=pairs_of(ANY_IDS, 12))
@settings(max_examples=examples(50), deadline=None)
def test_strings_of_any_ids_give_the_definition_s_distances(pairs) -> None:
    got = edit_distance(*sides(pairs), path="torch")
    assert got.dtype == torch.int64
    assert got.tolist() == by_definition(pairs)


@given(pairs=pairs_of(ANY_IDS, 6))
@settings(max_examples=examples(12, 200), deadline=None)
def test_the_kernel_gives_the_definition_s_distances(pairs) -> None:
    assert edit_distance(*sides(pairs), path="triton").tolist() == by_definition(pairs)


@pytest.mark.parametrize("path", PATHS)
def test_pairs_of_every_bucket_meet_in_one_batch(path) -> None:
    lengths = [(0, 0), (0, 5), (7, 0), (31, 3), (32, 33), (40, 2), (5, 60), (129, 130)]
    pairs = random_pairs(lengths)
    assert edit_distance(*sides(pairs), path=path).tolist() == by_definition(pairs)


def test_a_pair_too_long_for_the_kernel_is_compared_all_the_same() -> None:
    pairs = random_pairs([(3, 4), (1025, 1030), (0, 1)])
    assert edit_distance(*sides(pairs), path="triton").tolist() == edit_distance(*sides(pairs), path="torch").tolist()


def test_one_long_side_is_no_reason_to_leave_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "CONFIGS", CONFIGS[:1])
    monkeypatch.setattr(fused, "LONGEST", CONFIGS[0].length)
    pairs = random_pairs([(40, 2), (3, 50)])
    first, second = (tokens.as_batch(side, "side") for side in sides(pairs))
    assert fused.distances_fused(first, second, beyond=never).tolist() == by_definition(pairs)


def never(a, b):
    raise AssertionError("both pairs have a side that fits")


def test_the_narrowest_rows_that_fit_are_picked() -> None:
    assert [pick(n).length for n in (0, 32, 33, 128, 129, 1024)] == [32, 32, 128, 128, 512, 1024]
    assert [rows.length for rows in CONFIGS] == sorted(rows.length for rows in CONFIGS)


@pytest.mark.parametrize("path", PATHS)
def test_pairs_in_another_order_have_the_same_distances(path) -> None:
    pairs = random_pairs([(3, 9), (0, 4), (12, 12), (34, 5), (1, 1)])
    order = [3, 0, 4, 2, 1]
    straight = edit_distance(*sides(pairs), path=path)
    assert torch.equal(edit_distance(*sides([pairs[i] for i in order]), path=path), straight[order])


@pytest.mark.parametrize("path", PATHS)
def test_flat_ids_with_offsets_are_the_same_as_lists(path) -> None:
    pairs = random_pairs([(3, 9), (0, 4), (12, 12)])
    for dtype in (torch.int32, torch.int64):
        flat = [
            (
                torch.tensor([token for sequence in side for token in sequence], dtype=dtype),
                torch.tensor([0, *(len(sequence) for sequence in side)]).cumsum(0),
            )
            for side in sides(pairs)
        ]
        assert edit_distance(*flat, path=path).tolist() == by_definition(pairs)


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_batch_has_no_distances(path) -> None:
    assert edit_distance([], [], path=path).shape == (0,)


def test_more_ids_than_code_points_are_compared_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "NUM_CODE_POINTS", 5)
    pairs = [([-1, 7, 8, 9], [-2, 7, 2**61 - 1]), ([], [0]), ([3, 4, 5], [3, 5])]
    assert edit_distance(*sides(pairs)).tolist() == by_definition(pairs)


@pytest.mark.slow
def test_a_million_ids_more_than_unicode_has_are_compared() -> None:
    a = list(range(1_200_000))
    b = [*a[:600_000], -5, *a[600_001:]]
    assert edit_distance([a], [b]).tolist() == [1]


def test_every_code_point_but_the_surrogates_is_used_once() -> None:
    ids_T = torch.arange(tokens.NUM_CODE_POINTS)
    batch = tokens.Batch(ids_T, torch.tensor([0, len(ids_T)]))
    strings = tokens.as_strings(batch, batch)
    assert strings is not None
    assert len(set(strings[0][0])) == tokens.NUM_CODE_POINTS
    assert strings[0][0].encode("utf-32-le")


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        ([[1]], [[1], [2]], "a has 1 sequences and b 2; give as many of each"),
        ([[1], [1.5]], [[1], [2]], r"a\[1\] isn't a list of 64-bit integers"),
        ([[1]], [[2**63]], r"b\[0\] isn't a list of 64-bit integers"),
        ((torch.ones(2), torch.tensor([0, 2])), [[1]], "the ids of a are"),
        ((torch.ones(2).long(), torch.tensor([0, 3])), [[1]], "the offsets of a don't climb from 0 to its 2 ids"),
        ((torch.ones(2).long(), torch.tensor([0, 2, 1, 2])), [[1]] * 3, "don't climb"),
    ],
)
def test_a_faulty_batch_is_named(a, b, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        edit_distance(a, b)


SENTENCES = st.lists(st.tuples(*[st.text(alphabet="ab \t\n\u00a0\u2003", max_size=10)] * 2), min_size=1, max_size=5)


@given(pairs=SENTENCES)
@settings(max_examples=examples(100, 2000), deadline=None)
def test_words_and_rates_are_jiwer_s(pairs) -> None:
    references, hypotheses = sides(pairs)
    ours = word_errors(references, hypotheses)
    theirs = jiwer.process_words(references, hypotheses)
    assert ours.lengths_B.tolist() == [len(words) for words in theirs.references]
    assert int(ours.distances_B.sum()) == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.wer == theirs.wer


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"), [("", "", 0), ("", "a b", 2), ("a b", "", 1), ("a  b", "a b ", 0)]
)
def test_an_empty_side_is_rated_as_jiwer_rates_it(reference, hypothesis, rate) -> None:
    assert word_errors([reference], [hypothesis]).wer == rate == jiwer.wer([reference], [hypothesis])


def test_an_empty_reference_among_others_adds_its_insertions() -> None:
    references, hypotheses = ["", "a b c"], ["x y", "a b d"]
    assert word_errors(references, hypotheses).wer == 1.0 == jiwer.wer(references, hypotheses)


def test_a_hypothesis_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="1 references and 2 hypotheses; give one for each"):
        word_errors(["a"], ["a", "b"])
