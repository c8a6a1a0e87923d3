"""Dialogs with tools: the plan's balance and splits, and calls that anybody can execute again."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.export import export
from tercet.modality import NoAnswers, Planning, Resources
from tercet.randomness import canonical_json
from tercet.recipe import load_recipe
from tercet.records import Candidate, Item, Record
from tercet.sources import Term, load_sources
from tercet.store.manifest import write_manifest
from tercet.store.shards import write_shard
from tercet.testing import check_modality
from tercet_text import modality
from tercet_text.calls import calls_of, chat_messages
from tercet_text.environment import Environment
from tercet_text.gates import NearDuplicates, Repetition, Schema
from tercet_text.lm_suites import dialog_examples
from tercet_text.payload import payload
from tercet_text.plan import TextPlan, plan
from tercet_text.recipe import NearDuplicatesGate, RepetitionGate, SchemaGate, TextRecipe
from tercet_text.tool_dialogs import ToolDialogs

RECIPES = Path(__file__).parents[3] / "recipes"
TERMS = tuple(Term(f"medicine{number}") for number in range(80))
KINDS = {"straight", "missing", "two_calls", "error", "no_tool"}
RESOURCES = Resources(7, "en", cores=1, answers=NoAnswers())


def section_of(dialogs: int, **more: Any) -> TextRecipe:
    tools = {"dialogs": dialogs, "file": "tools.yaml", **more.pop("tools", {})}
    return TextRecipe.model_validate({"tools": tools, **more})


def plan_of(dialogs: int, seed: int = 3, terms: Sequence[Term] = TERMS, **more: Any) -> TextPlan:
    return plan(section_of(dialogs, **more), Planning(seed, "en", terms, root=str(RECIPES / "support")))


def items_of(planned: TextPlan) -> list[Item]:
    return [planned.item(index) for index in range(len(planned))]


def made_of(items: Sequence[Item], **more: Any) -> list[Candidate]:
    made = ToolDialogs(section_of(len(items), **more), RESOURCES)(items)
    return [Candidate(item, one.payload, one.parameters) for item, one in zip(items, made, strict=True)]


def calls(item: Item) -> list[dict[str, Any]]:
    return [exchange for exchange in item.spec["exchanges"] if "tool" in exchange]


# -- the plan ----------------------------------------------------------------------------------------------------------


@given(few=st.integers(1, 120), more=st.integers(0, 200), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_raising_the_quota_keeps_every_old_item(few: int, more: int, seed: int) -> None:
    old, new = plan_of(few, seed), plan_of(few + more, seed)
    assert [item.key for item in items_of(old)] == [new.item(index).key for index in range(few)]


@pytest.mark.parametrize("count", [23, 46, 400])
def test_every_prefix_is_balanced(count: int) -> None:
    """A round has 23 cells: the kinds of five tools, and five chats."""
    cells = Counter((item.cell["tool"], item.cell["kind"]) for item in items_of(plan_of(count)))
    chats = cells.pop(("none", "no_tool"))
    assert max(cells.values()) - min(cells.values()) <= 1 + (count % 23 > 0)
    assert abs(chats / count - 0.2) < 0.04
    assert {kind for _, kind in cells} == KINDS - {"no_tool"}


@pytest.mark.parametrize("share", [0, 0.5])
def test_the_share_without_a_tool_is_the_recipes(share: float) -> None:
    items = items_of(plan_of(360, tools={"no_tool": share}))
    assert abs(sum(item.cell["kind"] == "no_tool" for item in items) / 360 - share) < 0.03


@pytest.mark.parametrize("test", [0, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("count", [1, 50, 333])
def test_the_held_out_share_is_exact_and_counted_without_a_list(test: float, count: int) -> None:
    planned = plan_of(count, test=test)
    held_out = Counter(item.split for item in items_of(planned))["held_out"]
    assert planned.parts[-1][0].num_train(count) == count - held_out
    assert abs(held_out - test * count) <= 12


def test_every_tool_and_kind_is_held_out_too() -> None:
    items = items_of(plan_of(600, test=0.1))
    cells = {
        split: {tuple(item.cell.values()) for item in items if item.split == split} for split in ("train", "held_out")
    }
    assert cells["train"] == cells["held_out"]


def test_held_out_dialogs_ask_in_phrases_and_about_values_that_are_never_trained_on() -> None:
    asked: dict[str, set[Any]] = defaultdict(set)
    values: dict[str, set[Any]] = defaultdict(set)
    for item in items_of(plan_of(1500, test=0.2)):
        for exchange in item.spec["exchanges"]:
            asked[item.split].add((exchange.get("tool") or exchange["chat"], exchange["ask"]))
            given = {**exchange.get("arguments", {}), **exchange.get("values", {})}
            values[item.split] |= {
                value for name, value in given.items() if name in ("medicine", "term", "order", "prescription")
            }
    assert not asked["train"] & asked["held_out"]
    assert not values["train"] & values["held_out"]
    names = {term.text for term in TERMS}
    assert names & values["train"] | names & values["held_out"] == names
    assert len(names & values["held_out"]) == round(0.2 * 80)


def test_the_shipped_recipe_asks_in_held_out_words_alone() -> None:
    recipe = load_recipe(RECIPES / "support.yaml")
    section, sources = recipe.sections.modalities.text, load_sources(recipe)
    planned = plan(section, Planning(recipe.sections.seed, "en", sources.terms, root=str(recipe.root)))
    asked: dict[str, set[str]] = defaultdict(set)
    items = items_of(planned)
    for item, made in zip(items, ToolDialogs(section, RESOURCES)(items), strict=True):
        said = [message["content"].casefold() for message in made.payload["messages"] if message["role"] == "user"]
        asked[item.split].update(said[:1] if item.cell["kind"] == "missing" else said)  # not "two packs, please"
    assert len(asked["held_out"]) > 80
    assert not asked["train"] & asked["held_out"]


def test_few_ids_come_twice() -> None:
    ids = [
        call["arguments"]["order"]
        for item in items_of(plan_of(600))
        for call in calls(item)
        if "order" in call["arguments"]
    ]
    assert len(set(ids)) > 0.9 * len(ids) > 100


def test_an_error_is_planned_where_the_tool_knows_nothing_and_nowhere_else() -> None:
    for item in items_of(plan_of(300)):
        environment = Environment.of(item.spec["environment"])
        results = [environment.call(call["tool"], call["arguments"]) for call in calls(item)]
        if item.cell["kind"] == "error":
            assert ["error" in result for result in results] == [True]
        elif item.cell["kind"] == "straight":
            assert ["error" in result for result in results] == [False]
        assert [call["fails"] for call in calls(item)] == ["error" in result for result in results]


@pytest.mark.parametrize("terms", [(), (Term("zinc"),), (Term("zinc"), Term("iron"))], ids=len)
def test_few_terms_still_plan_sound_dialogs(terms: tuple[Term, ...]) -> None:
    items = items_of(plan_of(150, terms=terms))
    assert all(verdict.passed for verdict in Schema(SchemaGate(), RESOURCES)(made_of(items)))
    assert len({item.key for item in items}) == 150


def test_another_reworded_phrase_changes_the_items_that_use_it_alone(tmp_path: Path) -> None:
    text = (RECIPES / "support" / "tools.yaml").read_text()
    old = '- "is <branch> open on <day>?"'
    assert text.count(old) == 1
    (tmp_path / "tools.yaml").write_text(text.replace(old, '- "is <branch> open <day>?"'))
    before = items_of(plan_of(300))
    after = items_of(plan(section_of(300), Planning(3, "en", TERMS, root=str(tmp_path))))
    changed = {one.index for one, other in zip(before, after, strict=True) if one.key != other.key}
    asked = {item.index for item in before if "opening_hours" in str(item.spec["exchanges"])}
    assert changed
    assert changed <= asked


def test_a_hundred_million_items_are_planned_without_a_list() -> None:
    planned = plan_of(100_000_000)
    assert planned.item(99_999_999).key == planned.item(99_999_999).key
    assert 0 < planned.parts[-1][0].num_train(100_000_000) < 100_000_000


# -- the dialogs -------------------------------------------------------------------------------------------------------


def test_executing_each_call_again_gives_the_tool_messages() -> None:
    executed = 0
    for candidate in made_of(items_of(plan_of(400))):
        environment = Environment.of(json.loads(canonical_json(candidate.parameters["environment"])))
        messages = candidate.payload["messages"]
        for at, message in enumerate(messages):
            for call in calls_of(message):
                assert environment.fault(call.name, call.arguments) == ""
                assert messages[at + 1]["content"] == canonical_json(environment.call(call.name, call.arguments))
                executed += 1
    assert executed > 350


def test_each_kind_has_its_shape() -> None:
    shapes = defaultdict(set)
    for candidate in made_of(items_of(plan_of(200))):
        roles = "".join("c" if one["tool_calls"] else one["role"][0] for one in candidate.payload["messages"])
        shapes[candidate.payload["edge_case"]].add(roles)
    assert shapes == {
        "straight": {"sucta"},
        "error": {"sucta"},
        "missing": {"suaucta"},
        "two_calls": {"suctaucta"},
        "no_tool": {"sua"},
    }


def test_examples_in_the_same_phrase_depend_on_each_other() -> None:
    phrases: set[str] = set()
    for candidate in made_of(items_of(plan_of(300))):
        record = Record("1", "i", "text", "held_out", candidate.payload, {"parameters": candidate.parameters}, ())
        sources = [example.source for example in dialog_examples([record])]
        asked = [exchange["ask"] for exchange in candidate.item.spec["exchanges"]]
        assert sources == (asked * 2 if candidate.payload["edge_case"] == "missing" else asked)
        phrases.update(sources)
    assert len(phrases) < 150  # and not one per dialog


def test_the_user_says_every_argument_before_the_call() -> None:
    for candidate in made_of(items_of(plan_of(300))):
        said = ""
        for message in candidate.payload["messages"]:
            said += message["content"] if message["role"] == "user" else ""
            for call in calls_of(message):
                assert all(str(value) in said for value in call.arguments.values())


def test_a_missing_argument_is_asked_for_before_it_is_used() -> None:
    for candidate in made_of(items_of(plan_of(300))):
        if candidate.payload["edge_case"] == "missing":
            call = calls(candidate.item)[0]
            first, second = [one["content"] for one in candidate.payload["messages"] if one["role"] == "user"]
            value = re.compile(rf"\b{re.escape(str(call['arguments'][call['missing']]))}\b")
            assert not value.search(first)
            assert value.search(second)


def test_the_tools_column_is_one_list_of_function_schemas() -> None:
    for candidate in made_of(items_of(plan_of(5))):
        tools = json.loads(candidate.payload["tools"])
        assert [tool["type"] for tool in tools] == ["function"] * 5
        names = [tool["function"]["name"] for tool in tools]
        assert all(f"\n{name}(" in candidate.payload["messages"][0]["content"] for name in names)


def test_no_system_message_when_the_recipe_wants_none() -> None:
    for candidate in made_of(items_of(plan_of(5, system=False)), system=False):
        assert candidate.payload["messages"][0]["role"] == "user"


def test_the_gates_keep_most_of_400_dialogs() -> None:
    candidates = made_of(items_of(plan_of(400)))
    assert all(verdict.passed for verdict in Schema(SchemaGate(), RESOURCES)(candidates))
    assert all(verdict.passed for verdict in Repetition(RepetitionGate(), RESOURCES)(candidates))
    kept = [verdict.passed for verdict in NearDuplicates(NearDuplicatesGate(), RESOURCES)(candidates)]
    assert sum(kept) / 400 >= 0.95


@pytest.mark.parametrize(
    "term", ["<script>alert(1)</script>", "{term}", "[a|b]", "日本語の薬", "<term>", 'o\'brien "x" \\']
)
def test_a_hostile_term_stays_what_it_is(term: str) -> None:
    candidates = made_of(items_of(plan_of(60, terms=(Term(term),))))
    assert all(verdict.passed for verdict in Schema(SchemaGate(), RESOURCES)(candidates))
    assert any(term in message["content"] for one in candidates for message in one.payload["messages"])


# -- the gate ----------------------------------------------------------------------------------------------------------

Plant = Callable[[list[dict[str, str]]], list[dict[str, str]]]


def rewritten(role: str, old: str, new: str) -> Plant:
    """Replace a text in messages of one role, in content and calls."""

    def plant(messages: list[dict[str, str]]) -> list[dict[str, str]]:
        planted = [
            {
                key: value.replace(old, new) if one["role"] == role and key != "role" else value
                for key, value in one.items()
            }
            for one in messages
        ]
        assert planted != messages
        return planted

    return plant


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (rewritten("assistant", '"RX-', '"RX-9'), "arguments break|call isn't the planned one"),
        (rewritten("assistant", "order_status", "order_state"), "call of an undeclared tool"),
        (rewritten("assistant", '"order":', '"number":'), "arguments break the tool's schema"),
        (rewritten("assistant", '"arguments":{', '"arguments":{"x":1,'), "arguments break the tool's schema"),
        (rewritten("assistant", '[{"f', '{"f'), "tool calls are no JSON list of calls"),
        (rewritten("assistant", '"arguments"', '"args"'), "tool calls are no JSON list of calls"),
        (rewritten("tool", "2026", "2027"), "result isn't the environment's"),
        (rewritten("tool", "{", "{ "), "result isn't the environment's"),
        (lambda messages: messages[:-1], "result without a report"),
        (lambda messages: messages[:-2], "call without a result"),
        (lambda messages: [*messages[:3], messages[4]], "call without a result"),
        (lambda messages: [*messages[:2], *messages[3:]], "result without a call"),
        (lambda messages: [*messages[:4], messages[3], messages[4]], "result without a call"),
        (lambda messages: [*messages[:4], messages[1], messages[4]], "result without a report"),
        (lambda messages: [*messages, messages[1], *messages[2:]], "call isn't the planned one"),
        (lambda messages: [*messages[:2], messages[4]], "call isn't the planned one"),
        (lambda messages: [messages[0], {**messages[2], "role": "user"}, *messages[2:]], "call out of place"),
        (lambda messages: [*messages[:4], {**messages[4], "content": ""}], "empty message"),
    ],
    ids=range(18),
)  # fmt: skip
def test_the_schema_gate_finds_the_planted_fault(plant: Plant, reason: str) -> None:
    one = next(
        one for one in made_of(items_of(plan_of(60))) if one.item.cell == {"tool": "order_status", "kind": "straight"}
    )
    assert Schema(SchemaGate(), RESOURCES)([one])[0].passed
    planted = replace(one, payload={**one.payload, "messages": plant(list(one.payload["messages"]))})
    verdict = Schema(SchemaGate(), RESOURCES)([planted])[0]
    assert not verdict.passed
    assert re.fullmatch(reason, verdict.reason)


def test_a_valid_call_about_something_else_is_found_with_its_own_result() -> None:
    found = 0
    for one in made_of(items_of(plan_of(60))):
        if one.item.cell["kind"] != "straight" or "branch" not in calls(one.item)[0]["arguments"]:
            continue
        environment = Environment.of(one.parameters["environment"])
        call = calls(one.item)[0]
        other = {
            **call["arguments"],
            "branch": next(name for name in ("Harbour", "Station") if name != call["arguments"]["branch"]),
        }
        messages = [dict(message) for message in one.payload["messages"]]
        messages[2]["tool_calls"] = messages[2]["tool_calls"].replace(call["arguments"]["branch"], other["branch"])
        messages[3]["content"] = canonical_json(environment.call(call["tool"], other))
        verdict = Schema(SchemaGate(), RESOURCES)([replace(one, payload={**one.payload, "messages": messages})])[0]
        assert verdict.reason == "call isn't the planned one"
        found += 1
    assert found > 2


# -- the contract ------------------------------------------------------------------------------------------------------


def test_tool_dialogs_keep_the_contract_of_a_modality() -> None:
    planning = Planning(3, "en", TERMS, root=str(RECIPES / "support"))
    data = {"tools": {"dialogs": 40, "file": "tools.yaml"}, "dialogs": 3}
    larger = {"tools": {"dialogs": 90, "file": "tools.yaml"}, "dialogs": 5}
    check_modality(modality, data, larger_data=larger, planning=planning, make=20)


def test_a_dialog_without_calls_keeps_the_fingerprint_of_payload_version_1() -> None:
    old = {"messages": [{"role": "user", "content": "a"}], "citations": [], "tools": "[]"}
    new = {**old, "messages": [{"role": "user", "content": "a", "tool_calls": ""}]}
    called = {**old, "messages": [{"role": "user", "content": "a", "tool_calls": "[1]"}]}
    assert payload.fingerprint(old) == payload.fingerprint(new) != payload.fingerprint(called)


def test_an_exported_dialog_has_calls_and_tools_as_lists(tmp_path: Path) -> None:
    (candidate, *_) = made_of(items_of(plan_of(3)))
    record = Record("a" * 32, "i", "text", "train", candidate.payload, {}, ())
    shard = write_shard(tmp_path / "run/shards/text/train", 0, payload, "text", [record])
    write_manifest(tmp_path / "run", "r" * 32, [shard])
    export(tmp_path / "run", tmp_path / "out", ["jsonl", "webdataset"])
    (line,) = (tmp_path / "out/jsonl/text/train.jsonl").read_text().splitlines()
    with tarfile.open(next((tmp_path / "out/webdataset").rglob("*.tar"))) as tar:
        (member,) = tar.getnames()
        written = tar.extractfile(member)
        assert written is not None and json.loads(written.read()) == json.loads(line)
    row = json.loads(line)
    assert row["messages"] == chat_messages(candidate.payload["messages"])
    called = [call for message in row["messages"] for call in message.get("tool_calls", ())]
    assert all(isinstance(call["function"]["arguments"], dict) for call in called) and called
    assert row["tools"] == json.loads(candidate.payload["tools"])
