"""A dialog as a payload: chat messages, the citations behind them, and where it stands in the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tercet_text.calls import Call, pack_calls
from tercet_text.script import Exchange

NO_TOOLS = "[]"


def payload_of(spec: Mapping[str, Any], exchanges: Sequence[Exchange], system: str) -> dict[str, Any]:
    """Put exchanges together as a payload; an empty `system` adds no system message."""
    messages = [message("system", system)] if system else []
    for exchange in exchanges:
        messages.append(message("user", exchange.user))
        messages.append(message("assistant", exchange.assistant))
    quotes = (quote for exchange in exchanges for quote in exchange.quotes)
    return {
        "messages": messages,
        "citations": citations(quotes),
        "tools": NO_TOOLS,
        **{name: spec[name] for name in ("intent", "persona", "mood", "edge_case")},
    }


def message(role: str, content: str, calls: Sequence[Call] = ()) -> dict[str, str]:
    """Write one message."""
    return {"role": role, "content": content, "tool_calls": pack_calls(calls)}


def citations(quotes: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Keep each quote once, in the order of the dialog."""
    kept = {(quote["document"], quote["quote"]): None for quote in quotes}
    return [{"document": document, "quote": quote} for document, quote in kept]


def system_message(role: str) -> str:
    """State the assistant's role as a system message."""
    return f"You are {role}. Quote the documents; when they don't hold the answer, say so."
