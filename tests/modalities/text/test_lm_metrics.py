"""How turns and general answers are judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tercet.errors import SourceError
from tercet.recipe import load_recipe
from tercet.records import Record
from tercet_text import lm_suites
from tercet_text.calls import Call, pack_calls
from tercet_text.dialog import message
from tercet_text.general import Question, judging, normal, questions, read_own, tuning
from tercet_text.lm_metrics import (
    CALL_ERRORS,
    SPURIOUS,
    TASK_FAILURES,
    VALID_CALLS,
    count_tool_turn,
    facts,
    holds,
    read_turn,
    reply_error,
    write_turn,
)  # fmt: skip
from tercet_text.lm_suites import dialog_examples, first_phrase

PACKS = {"type": "integer", "minimum": 1, "maximum": 9}
TOOLS = [{"function": {"name": "price", "parameters": {"properties": {"packs": PACKS}, "required": ["packs"]}}}]


def said(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text}


def called(packs: object, total: str = "4.50", reply: str = "That is 4.50 pounds.") -> str:
    function = {"name": "price", "arguments": {"packs": packs}}
    call = {**said(""), "tool_calls": [{"type": "function", "function": function}]}
    return write_turn([call, {"role": "tool", "content": f'{{"total":"{total}"}}'}, said(reply)])


WANTED = called(3)


@pytest.mark.parametrize(
    ("made", "failures", "call_errors", "valid"),
    [
        (WANTED, 0, 0, 1),
        (called(3, reply="4.50!"), 0, 0, 1),
        (called(3, reply="That is 14.50 pounds."), 1, 0, 1),  # another fact
        (called(3, reply=""), 1, 0, 1),
        (called(4), 1, 1, 1),
        (called("3"), 1, 1, 0),  # breaks the schema
        (write_turn([said("It is 4.50.")]), 1, 1, 0),  # guessed, not looked up
        (write_turn([said("<tool_call>{")]), 1, 1, 0),
        ("no JSON", 1, 1, 0),
    ],
)
def test_a_turn_with_a_wanted_call(made: str, failures: int, call_errors: int, valid: int) -> None:
    counts = count_tool_turn(read_turn(WANTED), read_turn(made), TOOLS)
    assert counts == {TASK_FAILURES: (failures, 1), CALL_ERRORS: (call_errors, 1), VALID_CALLS: (valid, 1)}


@pytest.mark.parametrize(
    ("made", "failures", "spurious"),
    [
        (write_turn([said("How many packs?")]), 0, 0),
        (write_turn([said("")]), 1, 0),
        (WANTED, 1, 1),
        (write_turn([said("<tool_call>price")]), 1, 1),
    ],
)
def test_a_turn_without_a_wanted_call(made: str, failures: int, spurious: int) -> None:
    counts = count_tool_turn(read_turn(write_turn([said("Which?")])), read_turn(made), TOOLS)
    assert counts == {TASK_FAILURES: (failures, 1), SPURIOUS: (spurious, 1)}


def test_a_turn_that_should_ask_back_and_does_not_fails() -> None:
    wanted, made = (read_turn(write_turn([said(text)])) for text in ("How many packs?", "Here you are."))
    assert count_tool_turn(wanted, made, TOOLS, asks=True)[TASK_FAILURES] == (1, 1)
    assert count_tool_turn(wanted, wanted, TOOLS, asks=True)[TASK_FAILURES] == (0, 1)
    assert count_tool_turn(wanted, made, TOOLS)[TASK_FAILURES] == (0, 1)


def test_a_turn_that_ends_with_a_result_has_no_reply() -> None:
    assert read_turn(write_turn([{**said(""), "tool_calls": []}, {"role": "tool", "content": "{}"}])).reply == ""


def test_only_what_the_reference_reports_must_be_reported() -> None:
    turn = read_turn(called(3, total="4.50"))
    assert facts(turn) == ["4.50"]
    assert facts(read_turn(called(3, total="9.99"))) == []


def test_a_fact_inside_a_longer_number_is_not_held() -> None:
    assert holds("There are 7 packs", "7")
    assert holds("It costs 4.50.", "4.50")
    assert not holds("There are 17 packs", "7")
    assert not holds("It costs 7.50", "7")
    assert not holds("It costs 3.7", "7")


def test_the_error_of_a_reply_is_zero_for_the_same_words_and_one_for_none() -> None:
    assert reply_error("Yes, at noon!", "yes at noon") == 0
    assert reply_error("", "yes") == 1
    assert reply_error("yes no", "yes") == pytest.approx(1 / 3)


def test_a_dialog_is_cut_at_each_message_of_the_user() -> None:
    payload = {
        "messages": [
            message("system", "You help."), message("user", "How much are Packs of RX-1?"),
            message("assistant", "How many?"), message("user", "Order RX-1, 3 packs."),
            {**message("assistant", ""), "tool_calls": pack_calls([Call("price", {"packs": 3, "order": "RX-1"})])},
            message("tool", '{"total":"4.50"}'), message("assistant", "4.50"),
        ],
        "tools": "[{}]", "intent": "price", "edge_case": "missing", "persona": "",
    }  # fmt: skip
    record = Record("r", "i", "text", "held_out", payload, {"parameters": {"environment": {"seed": 1}}}, ())
    first, second = dialog_examples([record])
    assert [len(one.content["messages"]) for one in (first, second)] == [2, 4]
    assert first.content["environment"] == {"seed": 1}
    assert read_turn(first.reference).calls == ()
    assert read_turn(second.reference).calls == (Call("price", {"packs": 3, "order": "RX-1"}),)
    assert first.source == second.source == "how much are packs of <order>?"  # turns of a dialog depend on each other
    assert first.slices == {"turn": "asks back", "about": "price", "kind": "missing"}
    assert second.slices["turn"] == "calls"


def held_out(name: str, *said: str, asked: Sequence[str] = ()) -> Record:
    roles = ("user", "assistant")
    messages = [message(roles[at % 2], text) for at, text in enumerate(said)]
    payload = {"messages": messages, "tools": "[]", "intent": "i", "edge_case": "", "persona": "p"}
    return Record(name, "i", "text", "held_out", payload, {"parameters": {"asked": list(asked)}}, ())


def test_turns_have_their_phrases_as_sources_or_one_for_the_whole_dialog() -> None:
    plain = held_out("a", "Is zinc safe?", "Yes.", "And iron?", "Yes.")
    made = held_out("b", "Is zinc safe?", "Yes.", "And iron?", "Yes.", asked=["Is <term> safe?", "And <term>?"])
    assert [one.source for one in dialog_examples([plain])] == ["is zinc safe?"] * 2
    assert [one.source for one in dialog_examples([made])] == ["Is <term> safe?", "And <term>?"]
    assert (first_phrase(plain), first_phrase(made)) == ("a", "Is <term> safe?")


@pytest.mark.parametrize(("size", "tokens"), [(3, 96), (300, 151), (9_000, 512)])
def test_every_answer_has_room_for_the_longest_of_its_suite(size: int, tokens: int) -> None:
    records = [held_out("a", "Is it?", "Yes."), held_out("b", "u" * 9_000, "w" * size)]
    assert {one.content["most_tokens"] for one in dialog_examples(records)} == {tokens}


@pytest.mark.parametrize(
    ("phrases", "title"),
    [
        ([["And <term>?"]], "questions in phrases and about values never trained on"),
        ([[]], "questions of an intent, a persona and a mood never trained on together"),
        (
            [[], ["And <term>?"]],
            "questions in phrases and about values never trained on, or of an intent, a persona and a mood never "
            "trained on together",
        ),
    ],
)
def test_the_suites_title_says_what_was_held_out(
    phrases: list[list[str]], title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: t\nmodalities: {text: {dialogs: 3}}\n")
    records = [held_out(f"{at}", "Well?", "Yes.", asked=asked) for at, asked in enumerate(phrases)]
    monkeypatch.setattr(lm_suites, "read_records", lambda *_: iter(records))
    suite = lm_suites.read_suites(load_recipe(tmp_path / "recipe.yaml"), tmp_path)[0]
    assert (suite.title, len(suite.examples)) == (title, len(phrases))


def test_the_two_halves_of_the_general_questions_share_none() -> None:
    judged, other = ({one.text for one in half} for half in (judging(), tuning()))
    assert not judged & other
    assert judged | other == {one.text for one in questions()}
    assert min(len(judging()), len(tuning())) >= 140
    assert len({one.text for one in judging()}) == len(judging())


def test_no_question_holds_its_own_answer() -> None:
    choice = [one for one in questions() if one.topic != "kinds" and one.is_answered(one.text)]
    assert [one.text for one in choice] == []


def test_an_answer_is_a_whole_word_whatever_its_case() -> None:
    question = Question("", "", ("four", "1,000"))
    assert question.is_answered("It's FOUR.")
    assert question.is_answered("1,000 grams")
    assert question.is_answered("1000 grams")
    assert not question.is_answered("fourteen, or 10,000")
    assert normal("Dr. O'Neil, 1,000!") == "dr o neil 1000"


def test_a_row_of_a_users_questions_without_an_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Who?", "answer": "me|I"}\n{"question": "What?"}\n')
    with pytest.raises(SourceError, match=r"own.jsonl: row 2: give `question` and `answer`"):
        read_own(path)
    for answer in ("€", "Paris|"):  # what an empty reply holds, too
        path.write_text(f'{{"question": "Who?", "answer": "me"}}\n{{"question": "What?", "answer": "{answer}"}}\n')
        with pytest.raises(SourceError, match=rf"own.jsonl: row 2: answer '{re.escape(answer)}': .* holds no letter"):
            read_own(path)
    path.write_text('{"question": "Who?", "answer": "me|I"}\n')
    assert read_own(path) == [Question("your questions", "Who?", ("me", "I"))]
