"""The scenario grammar: what its dialogs hold, and that the same item always gives the same dialog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tercet.modality import Planning, Resources
from tercet.records import Candidate
from tercet.sources import Document, Term
from tercet_text.gates import NearDuplicates, Repetition, Schema
from tercet_text.payload import payload
from tercet_text.recipe import NearDuplicatesGate, RepetitionGate, SchemaGate

MakeDialogs = Callable[..., list[Candidate]]
HOSTILE_TERMS = (
    "{term}", "<script>alert(1)</script>", "x" * 120, "日本語の薬", "Ünïcödé ß", "[a|b]", "\\<term>", "{{ config }}",
    "a", "%s %d", "ﷺ", "R2-D2", "o'brien \"quoted\"", "\u202eevil", "émilé", "....", "<term>", "User: hello",
)  # fmt: skip
EDGE_CASES = (
    "missing_slot", "correction", "out_of_scope", "ambiguous_term", "topic_switch",
    "angry", "misspelt_term", "no_answer", "pressure",
)  # fmt: skip


def lines(candidate: Candidate, role: str) -> list[str]:
    return [message["content"] for message in candidate.payload["messages"] if message["role"] == role]


def test_citations_stand_in_the_documents_and_in_the_answers(make_dialogs: MakeDialogs, planning: Planning) -> None:
    texts = {document.name: document.text for document in planning.documents}
    cited = 0
    for candidate in make_dialogs(300):
        answers = " ".join(lines(candidate, "assistant"))
        for citation in candidate.payload["citations"]:
            assert citation["quote"] in texts[citation["document"]]
            assert " ".join(citation["quote"].split()) in answers
            cited += 1
    assert cited > 150


def test_without_documents_nothing_is_cited_and_the_assistant_says_so(
    make_dialogs: MakeDialogs, planning: Planning
) -> None:
    dialogs = make_dialogs(60, replace(planning, documents=()), intents=["dose"], edge_cases={"rate": 0})
    assert not any(dialog.payload["citations"] for dialog in dialogs)
    honest = ("my documents", "isn't in what I have", "can't find", "no line on", "no entry about")
    assert all(any(phrase in " ".join(lines(dialog, "assistant")) for phrase in honest) for dialog in dialogs)


@pytest.mark.parametrize("kind", EDGE_CASES)
@pytest.mark.parametrize("turns", [[2, 2], [6, 6], [12, 12]], ids=str)
def test_every_edge_case_plays_out_in_exactly_the_planned_length(
    make_dialogs: MakeDialogs, kind: str, turns: list[int]
) -> None:
    dialogs = make_dialogs(40, turns=turns, edge_cases={"rate": 1, "kinds": [kind]})
    played = [dialog for dialog in dialogs if dialog.payload["edge_case"] == kind]
    assert len(played) >= 30
    assert all(len(lines(dialog, "user")) == len(lines(dialog, "assistant")) == turns[0] for dialog in dialogs)


def test_a_missing_slot_is_asked_for_before_the_answer(make_dialogs: MakeDialogs) -> None:
    for dialog in make_dialogs(40, turns=[2, 2], edge_cases={"rate": 1, "kinds": ["missing_slot"]}):
        term = dialog.item.spec["term"]
        first, second = lines(dialog, "user")
        assert term not in first
        assert term in second
        assert "?" in lines(dialog, "assistant")[0] or "name" in lines(dialog, "assistant")[0]


def test_a_correction_ends_with_an_answer_about_the_right_term(make_dialogs: MakeDialogs) -> None:
    for dialog in make_dialogs(40, turns=[2, 2], edge_cases={"rate": 1, "kinds": ["correction"]}):
        assert dialog.item.spec["other_term"] in lines(dialog, "user")[0]
        assert dialog.item.spec["term"] in lines(dialog, "user")[1] + lines(dialog, "assistant")[1]


def test_an_obscure_question_gets_no_quote(make_dialogs: MakeDialogs) -> None:
    for dialog in make_dialogs(40, turns=[2, 2], edge_cases={"rate": 1, "kinds": ["no_answer"]}):
        assert "“" not in lines(dialog, "assistant")[1]


@pytest.mark.parametrize("term", HOSTILE_TERMS)
def test_a_hostile_term_stays_what_it_is(make_dialogs: MakeDialogs, planning: Planning, term: str) -> None:
    text = f"# Notes\n\nThe dose of {term} is one tablet, taken daily with water.\n"
    world = replace(planning, terms=(Term(term), Term("ibuprofen")), documents=(Document("notes.md", text),))
    dialogs = make_dialogs(60, world, edge_cases={"rate": 0.8})
    verdicts = Schema(SchemaGate(), Resources(0, "en", 1, None))(dialogs)  # type: ignore[arg-type]
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert any(term in " ".join(lines(dialog, "user")) for dialog in dialogs)


def test_the_grammars_dialogs_pass_their_own_gates(make_dialogs: MakeDialogs, resources: Resources) -> None:
    dialogs = make_dialogs(600)
    assert all(verdict.passed for verdict in Schema(SchemaGate(), resources)(dialogs))
    assert all(verdict.passed for verdict in Repetition(RepetitionGate(), resources)(dialogs))
    kept = [verdict.passed for verdict in NearDuplicates(NearDuplicatesGate(), resources)(dialogs)]
    assert sum(kept) / len(kept) >= 0.95


def test_users_own_intents_personas_and_moods_are_spoken(make_dialogs: MakeDialogs) -> None:
    dialogs = make_dialogs(
        8,
        turns=[2, 2],
        edge_cases={"rate": 0},
        intents=[
            {"name": "recall", "ask": ["is <term> [recalled|called back]?"], "reply": ["Ask <expert> about <term>."]}
        ],
        personas=[{"name": "auditor", "lead": ["I audit this."], "register": "formal"}],
        moods=["calm"],
    )
    assert all("called" in lines(dialog, "user")[0] for dialog in dialogs)
    assert all("sk a colleague about" in lines(dialog, "assistant")[0] for dialog in dialogs)


def test_no_system_message_when_the_recipe_wants_none(make_dialogs: MakeDialogs) -> None:
    assert not any(lines(dialog, "system") for dialog in make_dialogs(5, system=False))


PROGRAM = """
import json, sys
from tercet.modality import NoAnswers, Planning, Resources
from tercet.sources import Document, Term
from tercet_text.grammar import GrammarDialogs
from tercet_text.payload import payload
from tercet_text.plan import plan
from tercet_text.recipe import TextRecipe

section = TextRecipe(dialogs=40)
documents = (Document("a.md", "# A\\n\\nIbuprofen is taken with food, at most three times a day."),)
planned = plan(section, Planning(3, "en", (Term("ibuprofen"), Term("zinc"), Term("folic acid")), documents=documents))
order = range(40) if sys.argv[1] == "forward" else reversed(range(40))
items = [planned.item(index) for index in order]
made = GrammarDialogs(section, Resources(3, "en", 1, NoAnswers()))(items)
print(json.dumps(sorted((item.key, payload.fingerprint(one.payload)) for item, one in zip(items, made))))
"""


def test_another_process_hash_seed_and_order_give_the_same_dialogs() -> None:
    def run(order: str, hash_seed: str) -> list[list[str]]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, order], capture_output=True, text=True, check=True, env=environment
        )
        found: list[list[str]] = json.loads(done.stdout)
        return found

    assert run("forward", "1") == run("backward", "2")


def test_the_fingerprint_is_of_the_content() -> None:
    one = {"messages": [{"role": "user", "content": "a"}], "citations": [], "tools": "[]"}
    assert payload.fingerprint(one) == payload.fingerprint(dict(reversed(one.items())))
    assert payload.fingerprint(one) != payload.fingerprint({**one, "messages": [{"role": "user", "content": "b"}]})
