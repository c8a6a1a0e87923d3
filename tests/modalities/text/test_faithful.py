"""A rewording may leave words out; it must not bring facts in, drop the term, or turn a negation."""

from __future__ import annotations

import pytest

from tercet_text.completion import UnusableError, refuse_leak
from tercet_text.faithful import refuse_unfaithful

DRAFT = "I checked for you. According to Storage guide: “A zinc ointment in use keeps for 28 days at room temperature.”"


@pytest.mark.parametrize(
    "text", [DRAFT, "According to Storage guide, a zinc ointment in use keeps for 28 days at room temperature."]
)
def test_a_shorter_wording_passes(text: str) -> None:
    refuse_unfaithful(text, DRAFT, ("zinc", "iron"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DRAFT + " And it is also good for the skin of the hands.", "grew"),
        ("Storage guide.", "strays"),
        ("A zinc ointment keeps for 28 days because chemists add preservatives during production.", "strays"),
        ("Storage guide: a zinc ointment in use keeps for 82 days at room temperature.", "number"),
        ("Storage guide: a zink ointment in use keeps for 28 days at room temperature.", "term"),
        ("Storage guide: a zinc ointment in use never keeps for 28 days at room temperature.", "negation"),
        ("Storage guide: a zinc ointment in use doesn't keep for 28 days at room temperature.", "negation"),
    ],
)
def test_an_unfaithful_wording_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        refuse_unfaithful(text, DRAFT, ("zinc", "iron"))


@pytest.mark.parametrize(
    "text", ["The user is quite serious.", "You are an assistant that answers from the documents it is given."]
)
def test_an_answer_that_recites_its_instructions_is_refused(text: str) -> None:
    with pytest.raises(UnusableError, match="recites"):
        refuse_leak(text, "You are an assistant that answers from the documents.\nAnswer in one sentence.")


def test_a_plain_answer_recites_nothing() -> None:
    refuse_leak("Keep it dry.", "You are an assistant.\nExcerpts from the documents:\n- Guide: Keep it dry.")
