"""What a small model is asked to reword: the whole draft, then single sentences outside quotation marks."""

from __future__ import annotations

import pytest

from tercet_text.rewording import MIN_TOKENS, piece_for

DRAFT = (
    "I looked for you. On how much warfarin to take I have nothing at all. The handbook says: “Warfarin is taken once "
    "a day. It is never taken with aspirin.” A pharmacist can tell you how much is right."
)


def test_the_whole_comes_first_then_the_longest_sentence_and_then_all_again() -> None:
    asked = [piece_for(DRAFT, attempt).text for attempt in range(4)]
    assert asked == [
        DRAFT,
        "On how much warfarin to take I have nothing at all.",
        "A pharmacist can tell you how much is right.",
        DRAFT,
    ]


def test_what_is_quoted_is_never_reworded_by_itself() -> None:
    pieces = [piece_for(DRAFT, attempt).text for attempt in range(1, 3)]
    assert not any("is taken" in text or "never" in text for text in pieces)
    straight = (
        'The rule: "It is never taken with aspirin or wine. It is taken at night." That is all that I know of it.'
    )
    assert [piece_for(straight, attempt).text for attempt in (1, 2)] == ["That is all that I know of it.", straight]


@pytest.mark.parametrize("attempt", range(5))
def test_a_piece_fits_where_it_was_taken_from(attempt: int) -> None:
    piece = piece_for(DRAFT, attempt)
    assert piece.put(piece.text) == DRAFT
    assert piece.put("Ask.") == DRAFT.replace(piece.text, "Ask.")


def test_a_draft_of_one_sentence_is_asked_for_as_it_is_again_and_again() -> None:
    one = "I have nothing on how much warfarin to take."
    assert [piece_for(one, attempt).text for attempt in range(3)] == [one] * 3


def test_a_rewording_gets_the_tokens_that_its_draft_needs_and_no_more() -> None:
    assert piece_for(DRAFT, 0).max_tokens == len(DRAFT) // 3
    assert piece_for("Yes.", 0).max_tokens == MIN_TOKENS
