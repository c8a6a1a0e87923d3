"""The user's own dialogs: each JSONL row with `messages` becomes a record beside the synthetic ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json, digest
from tercet.records import Failure, Item, Made, ModelUse
from tercet_text.calls import CallError, read_calls
from tercet_text.dialog import NO_TOOLS, message
from tercet_text.recipe import TextRecipe

OWN_DATA = ModelUse("user:examples", "", "user", "free")  # the user's own data, used on the user's own terms
COLUMNS = ("messages", "citations", "tools", "intent", "persona", "mood", "edge_case")


class Examples:
    """Takes rows as they are; one that is no dialog is that item's failure and says which part is wrong."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 256

    def __init__(self, section: TextRecipe, resources: Resources) -> None:
        pass

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Give one payload per row; the row's other fields (its licence, say) go into the lineage untouched."""
        for item in items:
            row: Mapping[str, Any] = item.spec["example"]
            if fault := find_fault(row):
                yield Failure("generate", "BadExample", fault, retryable=False)
                continue
            own = {name: value for name, value in row.items() if name not in COLUMNS}
            parameters = {
                "parents": [f"example:{digest(canonical_json(dict(row)))}"],
                **({"fields": own} if own else {}),
            }
            yield Made(_payload(row), OWN_DATA, parameters)


def find_fault(row: Mapping[str, Any]) -> str:
    """Say what keeps a row from being a dialog; empty when nothing does."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return f"messages: {_kind(messages)}; a list of {{role, content}} is needed"
    for at, one in enumerate(messages):
        if fault := _message_fault(one):
            return f"messages[{at}]: {_kind(one)}; {fault}"
    for at, citation in enumerate(row.get("citations") or []):
        if not isinstance(citation, dict) or not all(
            isinstance(citation.get(key), str) for key in ("document", "quote")
        ):
            return f"citations[{at}]: {_kind(citation)}; document and quote must be text"
    return _tools_fault(row.get("tools"))


def _tools_fault(tools: Any) -> str:
    """Say what keeps a row's tools from being declared to a model: a list, or JSON of one, of functions with a name."""
    if tools is None or tools == "":
        return ""
    try:
        declared = json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError):
        declared = None
    if not isinstance(declared, list):
        return f"tools: {_kind(tools)}; a list of functions, or JSON of one, is needed"
    for at, tool in enumerate(declared):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return (
                f"tools[{at}]: {_kind(tool)}; {{type: function, function: {{name, description, parameters}}}} is needed"
            )
        parameters = function.get("parameters")
        if not isinstance(parameters or {}, dict) or not isinstance((parameters or {}).get("properties") or {}, dict):
            return f"tools[{at}].parameters: {_kind(parameters)}; a JSON Schema with properties is needed"
    return ""


def _message_fault(row: Any) -> str:
    """Say what keeps a row's message from being one; with calls it may have no content, as APIs write it."""
    if not isinstance(row, dict) or not isinstance(row.get("role"), str):
        return "role and content must be text"
    try:
        calls = read_calls(row.get("tool_calls"))
    except CallError as error:
        return str(error)
    has_content = isinstance(row.get("content"), str) or (calls and row.get("content") is None)
    return "" if has_content else "role and content must be text"


def _kind(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    tools = row.get("tools")
    return {
        "messages": [
            message(one["role"], one["content"] or "", read_calls(one.get("tool_calls"))) for one in row["messages"]
        ],
        "citations": [{"document": one["document"], "quote": one["quote"]} for one in row.get("citations") or []],
        "tools": tools if isinstance(tools, str) else canonical_json(tools) if tools else NO_TOOLS,
        **{label: str(row.get(label) or "") for label in ("intent", "persona", "mood", "edge_case")},
    }
