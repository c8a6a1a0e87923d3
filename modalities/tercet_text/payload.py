"""The shape of a dialog in a shard: chat messages with tools and citations, and its place in the plan."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tercet.modality import PayloadType
from tercet.randomness import canonical_json, digest
from tercet.records import Columns

LABELS = ("intent", "persona", "mood", "edge_case")
TEXT = {"dtype": "string", "_type": "Value"}


def fingerprint(payload: Columns) -> str:
    """Hash the canonical JSON of a dialog."""
    return digest(canonical_json(dict(payload)))


def _structs(*names: str) -> pa.DataType:
    return pa.list_(pa.struct([(name, pa.string()) for name in names]))


def _feature(*names: str) -> dict[str, Any]:
    return {"feature": dict.fromkeys(names, TEXT), "_type": "List"}


payload = PayloadType(
    version=1,
    columns=pa.schema(
        [
            ("messages", _structs("role", "content")),
            ("citations", _structs("document", "quote")),
            ("tools", pa.string()),  # JSON; "[]" when the dialog has none
            *((label, pa.string()) for label in LABELS),
        ]
    ),
    features={
        "messages": _feature("role", "content"),
        "citations": _feature("document", "quote"),
        "tools": TEXT,
        **dict.fromkeys(LABELS, TEXT),
    },
    fingerprint=fingerprint,
)
