"""Tool calls in messages: read from any hand, held to the declared schemas, shown to people and to chat templates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.modality import Resources
from tercet.records import Candidate, Failure, Item, Made
from tercet_text.calls import Call, CallError, chat_messages, order_fault, pack_calls, read_calls, schema_fault
from tercet_text.dialog import message
from tercet_text.examples import Examples
from tercet_text.gates import Schema
from tercet_text.recipe import SchemaGate, TextRecipe
from tercet_text.show import show

CALL = Call("price", {"medicine": "zinc <b>", "packs": 2})
PACKED = (
    '[{"function":{"arguments":{"medicine":"zinc <b>","packs":2},"name":"price"},"type":"function"}]'  # sorted keys
)
MESSAGES = [
    message("user", "What do 2 packs of zinc <b> cost?"),
    message("assistant", "", [CALL]),
    message("tool", '{"total":"4.50"}'),
    message("assistant", "4.50 pounds."),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "medicine": {"type": "string", "enum": ["zinc <b>", "iron"]},
        "packs": {"type": "integer", "minimum": 1, "maximum": 3},
        "note": {"type": ["string", "null"]},
    },
    "required": ["medicine", "packs"],
}
TOOLS = [{"type": "function", "function": {"name": "price", "parameters": SCHEMA}}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = ("type", "enum", "minimum", "maximum", "required", "properties", "name", "function", "parameters", "arguments")
likely = st.recursive(
    json_values, lambda inner: st.dictionaries(st.sampled_from(keys), inner, max_size=4), max_leaves=8
)


def test_calls_have_one_spelling() -> None:
    assert pack_calls([CALL]) == PACKED
    assert read_calls(PACKED) == [CALL]
    assert pack_calls([]) == ""
    assert read_calls("") == read_calls(None) == read_calls([]) == []


def test_openais_arguments_in_a_text_are_read() -> None:
    function = {"name": "price", "arguments": '{"medicine": "zinc <b>", "packs": 2}'}
    assert read_calls([{"id": "call_1", "type": "function", "function": function}]) == [CALL]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "not JSON"),
        ("{}", ""),
        ('"x"', "no list"),
        ([1], r"tool_calls\[0\]: {type"),
        ([{"function": {"name": 3, "arguments": {}}}], r"tool_calls\[0\]: {type"),
        ([{"function": {"name": "a"}}], "arguments must be a mapping"),
        ([{"function": {"name": "a", "arguments": "[1]"}}], "arguments must be a mapping"),
        ([{"function": {"name": "a", "arguments": "{"}}], "not JSON"),
        (7, "no list"),
    ],
)
def test_what_is_no_call_is_refused(value: Any, said: str) -> None:
    if not said:
        assert read_calls(value) == []
        return
    with pytest.raises(CallError, match=said):
        read_calls(value)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"medicine": "iron", "packs": 3}, ""),
        ({"medicine": "iron", "packs": 3, "note": None}, ""),
        ({"medicine": "iron"}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": 4}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": 0}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": True}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": "2"}, "arguments break the tool's schema"),
        ({"medicine": "gold", "packs": 2}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": 2, "colour": 1}, "arguments break the tool's schema"),
        ({"medicine": "iron", "packs": 2, "note": 5}, "arguments break the tool's schema"),
    ],
)
def test_arguments_are_held_to_the_declared_schema(arguments: dict[str, Any], fault: str) -> None:
    assert schema_fault([Call("price", arguments)], TOOLS) == fault
    assert schema_fault([Call("cost", arguments)], TOOLS) == "call of an undeclared tool"
    assert schema_fault([Call("cost", arguments)], []) == ""


@given(arguments=st.dictionaries(st.sampled_from(keys), json_values, max_size=3), tools=st.lists(likely, max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_tool_list_breaks_the_gate(arguments: dict[str, Any], tools: list[Any]) -> None:
    assert isinstance(schema_fault([Call("name", arguments)], tools), str)
    try:
        read_calls(tools)
    except CallError as error:
        assert str(error)  # noqa: PT017 - one of both


@pytest.mark.parametrize(
    ("num_results", "fault"),
    [(0, "call without a result"), (1, "call without a result"), (2, ""), (3, "result without a call")],
)
def test_each_of_several_calls_has_its_result(num_results: int, fault: str) -> None:
    question, called, result, report = MESSAGES
    twice = message("assistant", "One moment.", [CALL, CALL])
    assert order_fault([question, twice, *[result] * num_results, report]) == fault
    assert order_fault([question, called, result, called, result, report]) == ""


def test_chat_templates_get_real_lists() -> None:
    plain = chat_messages(MESSAGES)
    assert plain[0] == {"role": "user", "content": "What do 2 packs of zinc <b> cost?"}
    assert plain[1]["tool_calls"][0]["function"] == {"name": "price", "arguments": dict(CALL.arguments)}
    assert chat_messages([{"role": "user", "content": "a", "tool_calls": None}]) == [{"role": "user", "content": "a"}]


def shown_payload(messages: list[dict[str, str]]) -> dict[str, Any]:
    labels = dict.fromkeys(("intent", "persona", "mood", "edge_case"), "")
    return {"messages": messages, "citations": [], "tools": "[]", **labels}


def test_people_see_calls_and_results() -> None:
    shown = show(shown_payload(MESSAGES))
    assert 'assistant: -> price(medicine="zinc <b>", packs=2)\ntool: {"total":"4.50"}' in shown.text
    assert "-&gt; price(medicine=&quot;zinc &lt;b&gt;&quot;, packs=2)" in shown.html
    assert 'class="tercet-tool"' in shown.html


def test_calls_that_cant_be_read_are_shown_as_they_stand() -> None:
    assert "-> {oops" in show(shown_payload([{**MESSAGES[1], "tool_calls": "{oops"}])).text


def test_a_dialog_of_payload_version_1_is_shown_and_judged(resources: Resources) -> None:
    old = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    item = Item("text", "grammar", "train", {"term": "x"}, 0)
    assert show(shown_payload(old)).text == "user: Hi\nassistant: Hello."
    assert Schema(SchemaGate(), resources)([Candidate(item, shown_payload(old))])[0].passed


# -- the user's own dialogs with tools ---------------------------------------------------------------------------------

ROW = {
    "messages": [
        {"role": "user", "content": "Price of iron?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "price", "arguments": '{"packs":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"total": 3}'},
        {"role": "assistant", "content": "Three pounds."},
    ]
}


def example(row: dict[str, Any], resources: Resources) -> Candidate | Failure:
    item = Item("text", "examples", "train", {"example": row}, 0)
    made = next(Examples(TextRecipe(), resources)([item]))
    return Candidate(item, made.payload) if isinstance(made, Made) else made


def test_a_users_dialog_with_openais_calls_becomes_a_payload_that_passes(resources: Resources) -> None:
    taken = example(ROW, resources)
    assert isinstance(taken, Candidate)
    assert taken.payload["messages"][1] == message("assistant", "", [Call("price", {"packs": 1})])
    assert Schema(SchemaGate(), resources)([taken])[0].passed


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ([{"type": "function", "function": {"name": "cost", "parameters": {}}}], "call of an undeclared tool"),
        (TOOLS, "arguments break the tool's schema"),
    ],
)
def test_a_users_calls_are_held_to_the_tools_of_the_row(tools: Any, reason: str, resources: Resources) -> None:
    taken = example({**ROW, "tools": tools}, resources)
    assert isinstance(taken, Candidate)
    assert Schema(SchemaGate(), resources)([taken])[0].reason == reason


def test_tools_that_are_no_json_list_are_rejected(resources: Resources) -> None:
    taken = example(ROW, resources)
    assert isinstance(taken, Candidate)
    broken = replace(taken, payload={**taken.payload, "tools": "["})
    assert Schema(SchemaGate(), resources)([broken])[0].reason == "tools are no JSON list"


def test_a_users_call_without_its_result_is_rejected(resources: Resources) -> None:
    taken = example(ROW, resources)
    assert isinstance(taken, Candidate)
    short = replace(taken, payload={**taken.payload, "messages": taken.payload["messages"][:2]})
    assert Schema(SchemaGate(), resources)([short])[0].reason == "call without a result"


def test_a_row_whose_calls_are_none_names_the_message(resources: Resources) -> None:
    broken = {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"name": "price"}]}]}
    failure = example(broken, resources)
    assert isinstance(failure, Failure)
    assert failure.message.startswith("messages[0]: ")
    assert "tool_calls[0]" in failure.message
