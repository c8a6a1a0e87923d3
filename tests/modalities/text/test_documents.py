"""Looking things up: the right sentence, an exact quote, and honesty about what isn't there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.modality import Planning
from tercet.sources import Document, Term
from tercet_text.documents import DocumentIndex, on_one_line


@pytest.fixture
def index(planning: Planning) -> DocumentIndex:
    return DocumentIndex(planning.documents, planning.terms)


def test_a_question_about_a_term_finds_its_sentence(index: DocumentIndex) -> None:
    found = index.find("ibuprofen", ("food", "meal"), False)
    assert found["kind"] == "answer"
    assert found["quotes"][0] == {
        "document": "counter.md",
        "title": "Counter handbook",
        "quote": "Ibuprofen is taken with food, at most three times a day.",
    }


def test_a_heading_names_the_term_for_the_sentences_below(index: DocumentIndex) -> None:
    found = index.find("insulin", ("days", "keep"), False)
    assert found["kind"] == "answer"
    assert on_one_line(found["quotes"][0]["quote"]) == "A pen in use keeps for 28 days at room temperature."


def test_a_term_without_the_aspect_is_partial(index: DocumentIndex) -> None:
    assert index.find("metformin", ("fridge",), False)["kind"] == "partial"


def test_a_rule_that_names_no_term_is_general_where_rules_may_answer(index: DocumentIndex) -> None:
    keywords = ("kept", "dry", "light")
    assert index.find("zopiclone", keywords, False)["kind"] == "none"
    found = index.find("zopiclone", keywords, True)
    assert found["kind"] == "general"
    assert "25 degrees" in found["quotes"][0]["quote"]


def test_a_sentence_about_another_term_is_never_a_rule(index: DocumentIndex) -> None:
    found = index.find("zopiclone", ("kept", "radiator"), True)
    assert "Salbutamol" not in str(found)


def test_part_of_a_word_is_not_the_term() -> None:
    index = DocumentIndex([Document("a.md", "Zincography is a way of printing pictures.")], [])
    assert index.find("zinc", ("printing",), False)["kind"] == "none"


def test_a_term_without_letters_finds_nothing(index: DocumentIndex) -> None:
    assert index.find("....", ("food",), False)["kind"] == "none"


@given(st.lists(st.text(alphabet=st.sampled_from("abc .!?\n#-*1)\t é日|"), max_size=200), max_size=3))
@settings(max_examples=200, deadline=None)
def test_every_quote_is_an_exact_piece_of_its_document(texts: list[str]) -> None:
    documents = [Document(f"{at}.md", text) for at, text in enumerate(texts)]
    for sentence in DocumentIndex(documents, [Term("abc")]).sentences:
        quote = sentence.quote
        assert quote["quote"] in documents[int(quote["document"][:-3])].text
