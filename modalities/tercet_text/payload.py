"""The shape of a dialog in a shard: chat messages with tools and citations, and its place in the plan.

Version 2 added `tool_calls` to a message (`calls.py` says how they are spelt); a version 1 shard still reads, and its
messages lack the key. Where a dialog has no calls its fingerprint, and so its record's id, is that of version 1.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from tercet.modality import PayloadType
from tercet.randomness import canonical_json, digest
from tercet.records import Columns
from tercet_text.calls import chat_messages

LABELS = ("intent", "persona", "mood", "edge_case")
TEXT = {"dtype": "string", "_type": "Value"}


def fingerprint(payload: Columns) -> str:
    """Hash the canonical JSON of a dialog, leaving out `tool_calls` where a message has none."""
    messages = [
        {key: value for key, value in message.items() if value or key != "tool_calls"}
        for message in payload["messages"]
    ]
    return digest(canonical_json({**payload, "messages": messages}))


def plain(payload: Columns) -> Columns:
    """Give a dialog as chat templates and trainers read it: calls and tools as lists."""
    messages = chat_messages(payload["messages"])
    return {**payload, "messages": messages, "tools": json.loads(payload["tools"] or "[]")}


def _structs(*names: str) -> pa.DataType:
    return pa.list_(pa.struct([(name, pa.string()) for name in names]))


def _feature(*names: str) -> dict[str, Any]:
    return {"feature": dict.fromkeys(names, TEXT), "_type": "List"}


payload = PayloadType(
    version=2,
    columns=pa.schema(
        [
            ("messages", _structs("role", "content", "tool_calls")),
            ("citations", _structs("document", "quote")),
            ("tools", pa.string()),  # JSON list of function schemas; "[]" when the dialog has none
            *((label, pa.string()) for label in LABELS),
        ]
    ),
    features={
        "messages": _feature("role", "content", "tool_calls"),
        "citations": _feature("document", "quote"),
        "tools": TEXT,
        **dict.fromkeys(LABELS, TEXT),
    },
    fingerprint=fingerprint,
    plain=plain,
)
