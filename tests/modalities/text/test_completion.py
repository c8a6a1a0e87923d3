"""Cleaning a model's words: what is cut, what stays, what can't be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet_text.completion import UnusableError, clean


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        ("Keep it dry.", "stop", "Keep it dry."),
        ("  Keep it dry.\n\n", "stop", "Keep it dry."),
        ("Assistant: Keep it dry.", "stop", "Keep it dry."),
        ("**Assistant:** Keep it dry.", "stop", "Keep it dry."),
        ("Keep it dry.\nUser: And then?\nAssistant: Nothing.", "stop", "Keep it dry."),
        ("Keep it dry. Human: and then", "length", "Keep it dry."),
        ("Keep it dry.<|im_end|>\n<|im_start|>user", "stop", "Keep it dry."),
        ("Keep it dry.</s>", "stop", "Keep it dry."),
        ("Keep it dry. Then you can put it in", "length", "Keep it dry."),
        ("He said: “Keep it dry.” Then you", "length", "He said: “Keep it dry.”"),
        ("Take 2.5 ml daily. Or 3.5 ml of", "length", "Take 2.5 ml daily."),
        ("Keep it dry", "stop", "Keep it dry"),
        ("Ask the user: they know.", "stop", "Ask the user: they know."),
        ("Bell\x07 and\x1b more.", "stop", "Bell and more."),
    ],
)
def test_an_answer_is_cut_to_what_the_assistant_says(text: str, finish_reason: str, expected: str) -> None:
    assert clean(text, finish_reason) == expected


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("", "stop", "empty completion"),
        (" \n\t", "stop", "empty completion"),
        ("User: what?", "stop", "no answer before the next role"),
        ("<|im_end|>", "stop", "no answer before the next role"),
        ("Once upon a time there was a", "length", "cut off in its first sentence"),
        ("I can help you with that. " * 9, "stop", "repeated loop"),
        ("the cat and " * 40, "length", "repeated loop"),
    ],
)
def test_what_can_not_stand_as_an_answer_is_named(text: str, finish_reason: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        clean(text, finish_reason)


@given(text=st.text(max_size=200), finish_reason=st.sampled_from(["stop", "length"]))
def test_whatever_comes_back_is_cleaned_or_refused(text: str, finish_reason: str) -> None:
    try:
        cleaned = clean(text, finish_reason)
    except UnusableError:
        return
    assert cleaned == cleaned.strip()
    assert cleaned
    assert clean(cleaned, "stop") == cleaned
