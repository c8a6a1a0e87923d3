"""The phrase grammar: choices, slots, and values that are never read as phrases."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet_text.phrases import PhraseError, expand, parse
from tercet_text.speaking import in_register, join, misspell


def spell(source: str, seed: int = 0, **values: str) -> str:
    return "".join(part.text for part in expand(source, random.Random(seed), values, {"rule": ("made by <term>",)}))


def test_every_way_through_a_phrase_comes_up() -> None:
    found = {spell("[a|b[1|2]|]c", seed) for seed in range(200)}
    assert found == {"ac", "b1c", "b2c", "c"}


def test_a_rule_fills_a_slot_that_has_no_value() -> None:
    assert spell("<rule>!", term="us") == "made by us!"


def test_a_backslash_keeps_the_marks() -> None:
    assert spell(r"\[x\|y\] \<term>") == "[x|y] <term>"


@given(st.text())
def test_a_value_is_never_read_as_a_phrase(value: str) -> None:
    assert spell("<term>", term=value) == value


@pytest.mark.parametrize("source", ["[a", "a]", "a|b", "[" * 40 + "]" * 40])
def test_a_broken_phrase_is_refused(source: str) -> None:
    with pytest.raises(PhraseError):
        parse(source)


def test_an_unknown_slot_is_named_with_the_known_ones() -> None:
    with pytest.raises(PhraseError, match="<nobody> has no value here; known: rule, term"):
        spell("<nobody>", term="x")


def test_a_rule_that_inserts_itself_ends_with_an_error() -> None:
    with pytest.raises(PhraseError):
        list(expand("<loop>", random.Random(0), {}, {"loop": ("<loop>",)}))


def test_sentences_begin_with_a_capital_and_terms_stay() -> None:
    parts = list(expand("hello! <term> is here. [what] now?", random.Random(0), {"term": "pH strips"}, {}))
    assert join(parts) == "Hello! pH strips is here. What now?"


@pytest.mark.parametrize("register", ["plain", "formal", "casual", "terse", "learner"])
def test_no_register_touches_a_given_term(register: str) -> None:
    term = "The A-Team Please"
    parts = list(expand("Is the <term> a good thing, please?", random.Random(0), {"term": term}, {}))
    for seed in range(20):
        assert term in in_register(random.Random(seed), register, parts)


@given(term=st.text(min_size=1, max_size=30), seed=st.integers(0, 50))
def test_a_misspelt_term_differs_from_the_term(term: str, seed: int) -> None:
    assert misspell(random.Random(seed), term) != term
