import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet_audio.metrics import TermErrors, normaliser

ENGLISH = normaliser("en")
WORDS = st.lists(
    st.sampled_from(["take", "the", "metformin", "now", "beta", "blocker", "with", "water", "please"]), max_size=8
).map(" ".join)


def count(reference, hypothesis, terms=("metformin", "beta blocker")):
    return TermErrors(terms, ENGLISH)(reference, hypothesis)


@given(reference=WORDS.filter(bool), hypothesis=WORDS)
def test_all_errors_are_those_of_jiwer_and_split_into_two_parts(reference, hypothesis):
    found = count(reference, hypothesis)
    theirs = jiwer.process_words(ENGLISH(reference), ENGLISH(hypothesis) or "")
    assert found.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert found.words == len(ENGLISH(reference).split())
    assert 0 <= found.term_errors <= found.errors
    assert found.other_words == found.words - found.term_words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "term_errors", "other_errors", "recalled", "triggers"),
    [
        ("Take metformin now.", "take metformin, now", 0, 0, 1, 0),
        ("Take metformin now.", "take met for men now", 1, 2, 0, 0),
        ("Take a beta blocker.", "take a beta locker", 1, 0, 0, 0),
        ("Take it now.", "take metformin now", 0, 1, 0, 1),
        ("Take water.", "take metformin water", 1, 0, 0, 1),
        ("Metformin and metformin.", "metformin and", 1, 0, 1, 0),
        ("Take 2 tablets.", "take two tablets", 0, 0, 0, 0),
        ("", "metformin", 1, 0, 0, 1),
        ("Take metformin.", "", 1, 1, 0, 0),
    ],
)
def test_errors_are_put_where_they_belong(reference, hypothesis, term_errors, other_errors, recalled, triggers):
    found = count(reference, hypothesis)
    assert (found.term_errors, found.other_errors) == (term_errors, other_errors)
    assert (found.recalled, found.false_triggers) == (recalled, triggers)


def test_the_longest_term_wins():
    found = count("a beta blocker plus", "a beta blocker plus", ("beta", "beta blocker plus"))
    assert (found.terms, found.term_words) == (1, 3)
