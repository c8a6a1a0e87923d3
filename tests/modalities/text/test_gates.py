"""The gates: every planted fault is found, and nothing sound is rejected."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.modality import Resources
from tercet.records import Candidate, Item
from tercet_text.gates import NearDuplicates, Repetition, Schema
from tercet_text.near_duplicates import (
    NUM_HASHES,
    RECALL,
    Index,
    jaccard,
    rows_per_band,
    shingles,
    sign,
    sign_on_device,
    signed,
)
from tercet_text.recipe import Gates, NearDuplicatesGate, RepetitionGate, SchemaGate

MakeDialogs = Callable[..., list[Candidate]]


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def candidate(messages: list[dict[str, str]], generator: str = "grammar", **more: Any) -> Candidate:
    quote = {"document": "a.md", "title": "A", "quote": "Keep it dry."}
    spec = {"term": "zinc", "other_term": "iron", "asks": [{"quotes": [quote]}]}
    return Candidate(
        Item("text", generator, "train", spec, 0), {"messages": messages, "citations": [], "tools": "[]", **more}
    )


GOOD = [user("How do I keep it?"), assistant("Keep it dry.")]
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ([SYSTEM], "no messages"),
        ([SYSTEM, SYSTEM, *GOOD], "role out of place"),
        ([*GOOD, SYSTEM], "role out of place"),
        ([{"role": "robot", "content": "Beep."}, *GOOD], "role out of place"),
        ([*reversed(GOOD)], "roles don't alternate"),
        ([GOOD[0], *GOOD], "roles don't alternate"),
        ([GOOD[0], GOOD[1], GOOD[1]], "roles don't alternate"),
        ([*GOOD, user("And then?")], "assistant isn't last"),
        ([user(" \n"), assistant("Yes.")], "empty message"),
        ([user("Hi"), assistant("x" * 4001)], "message too long"),
        (GOOD * 33, "too many messages"),
        ([user("Hi\x00"), assistant("Yes.")], "control character"),
        ([user("Hi"), assistant("\x1b[31mred")], "control character"),
        ([user("How much {term}?"), assistant("Some.")], "template leftover"),
        ([user("Hi"), assistant("Dear {{ user.name }}!")], "template leftover"),
        ([user("Hi"), assistant("According to <title>: yes.")], "template leftover"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schema_finds_the_planted_fault(messages: list[dict[str, str]], reason: str, resources: Resources) -> None:
    verdict = Schema(SchemaGate(), resources)([candidate(messages)])[0]
    assert (verdict.passed, verdict.reason) == (False, reason)


@pytest.mark.parametrize("messages", [GOOD, [SYSTEM, *GOOD], [*GOOD, *GOOD], [user("a\n\tb"), assistant('{"x": 1}')]])
def test_schema_passes_a_sound_dialog(messages: list[dict[str, str]], resources: Resources) -> None:
    assert Schema(SchemaGate(), resources)([candidate(messages)])[0].passed


@pytest.mark.parametrize(
    ("citation", "passes"),
    [
        ({"document": "a.md", "quote": "Keep it dry."}, True),
        ({"document": "a.md", "quote": "Keep it wet."}, False),
        ({"document": "b.md", "quote": "Keep it dry."}, False),
    ],
)
def test_a_citation_that_no_document_holds_is_rejected(
    citation: dict[str, str], resources: Resources, *, passes: bool
) -> None:
    verdict = Schema(SchemaGate(), resources)([candidate(GOOD, citations=[citation])])[0]
    assert verdict.passed is passes
    assert passes or verdict.reason == "citation not in the documents"


@pytest.mark.parametrize("tools", ["", "{}", "[", "null"])
def test_tools_must_be_a_json_list(tools: str, resources: Resources) -> None:
    assert Schema(SchemaGate(), resources)([candidate(GOOD, tools=tools)])[0].reason == "tools are no JSON list"


def test_the_users_own_examples_may_hold_braces_and_their_own_citations(resources: Resources) -> None:
    mine = candidate(
        [user("What is {name}?"), assistant("A slot.")], "examples", citations=[{"document": "x", "quote": "y"}]
    )
    assert Schema(SchemaGate(), resources)([mine])[0].passed


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["I do not know that. I do not know that. I do not know that."], "repeated sentences"),
        (["the cat sat on the mat and " * 12], "repeated word sequences"),
        (
            [" ".join(random.Random(n).sample(["one", "two", "three", "four"] * 8, 32)) for n in range(4)],
            "few different",
        ),
    ],
)
def test_repetition_finds_a_dialog_that_goes_in_circles(said: list[str], reason: str, resources: Resources) -> None:
    messages = [message for text in said for message in (user("Tell me more about it"), assistant(text))]
    gate = (
        RepetitionGate()
        if reason != "few different"
        else RepetitionGate(max_repeated_ngrams=1, max_repeated_sentences=1)
    )
    verdict = Repetition(gate, resources)([candidate(messages)])[0]
    assert not verdict.passed
    assert verdict.reason.startswith(reason)


def test_repetition_ignores_the_system_message(resources: Resources) -> None:
    loud = {"role": "system", "content": "Be kind to all. " * 30}
    assert Repetition(RepetitionGate(), resources)([candidate([loud, *GOOD])])[0].passed


def test_a_gate_set_to_null_is_off() -> None:
    gates = Gates.model_validate({"schema": None, "repetition": None, "near_duplicates": None})
    assert (gates.schema, gates.repetition, gates.near_duplicates) == (None, None, None)


def brute_force(texts: list[str], threshold: float, num_words: int) -> list[bool]:
    """Keep a text when no kept one before it is at least `threshold` similar, by plain sets."""
    kept: list[set[tuple[str, ...]]] = []
    verdicts = []
    for text in texts:
        said = text.split()
        width = min(num_words, len(said))
        found = {tuple(said[at : at + width]) for at in range(len(said) - width + 1)} if width else set()
        near = any(len(found & old) / len(found | old) >= threshold if found | old else True for old in kept)
        verdicts.append(not near)
        if not near:
            kept.append(found)
    return verdicts


words = st.sampled_from(list("abcdef"))


@given(texts=st.lists(st.lists(words, max_size=12).map(" ".join), max_size=12), num_words=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_near_duplicates_agree_with_brute_force(texts: list[str], num_words: int) -> None:
    """Threshold 0.4: single-row bands propose all but 0.6^128 of such pairs, so the two must agree."""
    index = Index(0.4)
    index._rows = 1
    index._tables = [{} for _ in range(NUM_HASHES)]
    verdicts = []
    for found, signature in signed(shingles(text, num_words) for text in texts):
        verdicts.append(index.closest(found, signature) < 0.4)
        if verdicts[-1]:
            index.add(found, signature)
    assert verdicts == brute_force(texts, 0.4, num_words)


@given(one=st.lists(words, max_size=30), other=st.lists(words, max_size=30), num_words=st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_jaccard_of_shingles_is_that_of_plain_sets(one: list[str], other: list[str], num_words: int) -> None:
    def plain(said: list[str]) -> set[tuple[str, ...]]:
        width = min(num_words, len(said))
        return {tuple(said[at : at + width]) for at in range(len(said) - width + 1)} if width else set()

    left, right = plain(one), plain(other)
    expected = len(left & right) / len(left | right) if left | right else 1.0
    assert jaccard(shingles(" ".join(one), num_words), shingles(" ".join(other), num_words)) == pytest.approx(expected)


def test_a_gpu_signs_as_numpy_does() -> None:
    """The kernels' own tests prove that a GPU gives what their CPU path gives."""
    generator = np.random.default_rng(3)
    sets = [np.unique(generator.integers(0, 2**64, size, dtype=np.uint64)) for size in (40, 0, 1, 700)]
    for one, other in zip(map(sign, sets), sign_on_device(sets, "cpu"), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_a_pair_at_the_threshold_is_proposed_as_often_as_promised(threshold: float) -> None:
    rows = rows_per_band(threshold)
    assert 1 - (1 - threshold**rows) ** (NUM_HASHES // rows) >= RECALL
    generator = np.random.default_rng(0)
    found, trials = 0, 400
    for _ in range(trials):
        pool = np.unique(generator.integers(0, 2**63, 200, dtype=np.uint64))
        shared = round(len(pool) * threshold) + 1
        half = (len(pool) - shared) // 2
        one, other = np.sort(pool[: shared + half]), np.sort(np.concatenate([pool[:shared], pool[shared + half :]]))
        index = Index(threshold)
        (first, first_signature), (second, second_signature) = signed([one, other])
        index.add(first, first_signature)
        found += index.closest(second, second_signature) > 0
    assert found / trials >= RECALL - 3 * math.sqrt(RECALL * (1 - RECALL) / trials)


def test_a_dialog_with_one_word_changed_is_rejected_and_the_first_one_kept(
    make_dialogs: MakeDialogs, resources: Resources
) -> None:
    dialogs = make_dialogs(50)
    twins = []
    for dialog in dialogs:
        first, *rest = dialog.payload["messages"]
        opening = {**rest[0], "content": "Well " + rest[0]["content"]}
        twins.append(replace(dialog, payload={**dialog.payload, "messages": [first, opening, *rest[1:]]}))
    verdicts = list(NearDuplicates(NearDuplicatesGate(), resources)([*dialogs, *twins]))
    assert all(verdict.passed for verdict in verdicts[:50])
    assert all(verdict.reason == "near duplicate" for verdict in verdicts[50:])


def test_near_duplicates_stream_one_verdict_per_candidate(make_dialogs: MakeDialogs, resources: Resources) -> None:
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for dialog in make_dialogs(9):
            taken += 1
            yield dialog

    steps = [taken for _ in NearDuplicates(NearDuplicatesGate(), resources)(counted())]
    assert all(later - earlier == 1 for earlier, later in pairwise(steps))


def test_two_dialogs_without_words_are_duplicates(resources: Resources) -> None:
    silent = candidate([user("..."), assistant("!")])
    assert [one.passed for one in NearDuplicates(NearDuplicatesGate(), resources)([silent, silent])] == [True, False]
