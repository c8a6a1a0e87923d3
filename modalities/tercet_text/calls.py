"""Tool calls in messages: their one spelling in a payload, as chat templates want them, and what can be wrong.

A message's `tool_calls` is the JSON of `[{"type": "function", "function": {"name", "arguments"}}]`, empty without
calls; `arguments` is a mapping. Each call is answered by one message of role `tool`, in order, and the last of them
by the assistant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.randomness import canonical_json
from tercet_text.environment import Environment

NO_CALLS = ""
Message = Mapping[str, Any]
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "array": (list,), "object": (dict,), "null": (type(None),),
}  # fmt: skip
ROLES = {"user": "user", "answer": "assistant", "result": "tool", "report": "assistant"}  # who says what is due
LACKING = {"result": "call without a result", "report": "result without a report"}


class CallError(ValueError):
    """Something else stands where tool calls should; says where."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


def pack_calls(calls: Sequence[Call]) -> str:
    """Write calls as a payload holds them."""
    listed = [{"type": "function", "function": {"name": one.name, "arguments": dict(one.arguments)}} for one in calls]
    return canonical_json(listed) if listed else NO_CALLS


def read_calls(value: Any) -> list[Call]:
    """Read calls from a payload's text or from a list; arguments may be JSON text, as OpenAI's answers hold them.

    Raises:
        CallError: it is something else.
    """
    listed = _from_json(value) or []
    if not isinstance(listed, list):
        raise CallError("tool_calls: no list")
    return [_read_call(one, f"tool_calls[{at}]") for at, one in enumerate(listed)]


def _read_call(value: Any, place: str) -> Call:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise CallError(f"{place}: {{type, function: {{name, arguments}}}} is needed")
    arguments = _from_json(function.get("arguments"))
    if not isinstance(arguments, dict):
        raise CallError(f"{place}: arguments must be a mapping")
    return Call(function["name"], arguments)


def _from_json(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise CallError(f"tool_calls: not JSON: {error}") from error


def calls_of(message: Message) -> list[Call]:
    """Read the calls of a payload's message; none in a dialog of payload version 1.

    Raises:
        CallError: they are no calls.
    """
    return read_calls(message.get("tool_calls"))


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Give a payload's messages as chat templates and APIs take them: real lists of calls, no key without a value."""
    given = []
    for message in messages:
        calls = message.get("tool_calls")
        plain = {"role": message["role"], "content": message["content"]}
        given.append({**plain, "tool_calls": json.loads(calls)} if calls else plain)
    return given


def order_fault(messages: Sequence[Message]) -> str:
    """Say how roles stand out of order, a leading system message left out; empty when they don't.

    Raises:
        CallError: a message's calls are no calls.
    """
    due, num_results = "user", 0
    for message in messages:
        role = message["role"]
        calls = calls_of(message)
        if role == "tool" and due != "result":
            return "result without a call"
        if role != ROLES[due]:
            return LACKING.get(due, "roles don't alternate")
        if calls and role != "assistant":
            return "call out of place"
        if role == "tool":
            num_results -= 1
            due = "result" if num_results else "report"
        else:
            num_results = len(calls)
            due = "answer" if role == "user" else "result" if calls else "user"
    return "" if due == "user" else LACKING.get(due, "assistant isn't last")


def schema_fault(calls: Sequence[Call], tools: Sequence[Any]) -> str:
    """Say how calls break the schemas that the dialog declares; empty when they don't, or when it declares none.

    Of JSON Schema: type, enum, minimum, maximum, required, and properties that aren't named.
    """
    functions = [_mapping(_mapping(tool).get("function", tool)) for tool in tools]
    declared = {str(one.get("name")): _mapping(one.get("parameters")) for one in functions}
    for call in calls if declared else ():
        if call.name not in declared:
            return "call of an undeclared tool"
        schema = declared[call.name]
        properties, required = _mapping(schema.get("properties")), schema.get("required")
        names = {*call.arguments, *(required if isinstance(required, list) else ())}
        if any(name not in call.arguments or name not in properties for name in names):
            return "arguments break the tool's schema"
        if not all(_fits(value, _mapping(properties[name])) for name, value in call.arguments.items()):
            return "arguments break the tool's schema"
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    """Take a mapping; what a user's example has in its place constrains nothing."""
    return value if isinstance(value, dict) else {}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    wanted, enum = schema.get("type"), schema.get("enum")
    kinds = [one for kind in (wanted if isinstance(wanted, list) else [wanted]) for one in TYPES.get(str(kind), ())]
    if kinds and type(value) not in kinds:  # not isinstance: True is an int to it
        return False
    if isinstance(enum, list) and value not in enum:
        return False
    if type(value) not in TYPES["number"]:
        return True
    least, most = (schema.get(key) for key in ("minimum", "maximum"))
    is_above = type(least) not in TYPES["number"] or value >= least
    return is_above and (type(most) not in TYPES["number"] or value <= most)


def plan_fault(messages: Sequence[Message], spec: Mapping[str, Any]) -> str:
    """Say how a dialog's calls and results differ from the plan's and from what executing them gives."""
    made = [call for message in messages for call in calls_of(message)]
    exchanges = (exchange for exchange in spec["exchanges"] if "tool" in exchange)
    if made != [Call(exchange["tool"], exchange["arguments"]) for exchange in exchanges]:
        return "call isn't the planned one"
    given = [message["content"] for message in messages if message["role"] == "tool"]
    environment = Environment.of(spec["environment"])
    expected = [canonical_json(environment.call(call.name, call.arguments)) for call in made]
    return "" if given == expected else "result isn't the environment's"
