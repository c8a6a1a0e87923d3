"""A dialog for human eyes: lines for a terminal, speech bubbles for the report. Everything in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tercet.modality import Shown
from tercet.randomness import canonical_json
from tercet.records import Columns
from tercet_text.calls import Call, CallError, calls_of

MAX_LINE_CHARACTERS = 400
BUBBLE = (
    "border-radius:.8em;padding:.45em .8em;margin:.25em 0;max-width:85%;white-space:pre-wrap;overflow-wrap:anywhere"
)
STYLES = {
    "user": f"{BUBBLE};background:#e8eef9;color:#10203a;margin-right:auto;width:fit-content",
    "assistant": f"{BUBBLE};background:#e5f4ea;color:#10301c;margin-left:auto;width:fit-content",
    "tool": f"{BUBBLE};background:#f3efe4;color:#3a3010;font-family:monospace;font-size:.85em;width:fit-content",
    "system": "font-style:italic;color:#667;font-size:.85em;margin:.25em 0",
}


def show(payload: Columns) -> Shown:
    """Render a dialog."""
    return Shown(_text(payload), _html(payload))


def show_turn(messages: Sequence[Mapping[str, Any]]) -> Shown:
    """Render some messages of a dialog; calls may be a list, as chat templates take them."""
    return Shown("\n".join(map(_line, messages)), f'<div class="tercet-dialog">{"".join(map(_bubble, messages))}</div>')


def _text(payload: Columns) -> str:
    lines = [_line(message) for message in payload["messages"]]
    lines += [f"cites {_printable(one['document'])}: “{_printable(one['quote'])}”" for one in payload["citations"]]
    return "\n".join(lines)


def _line(message: Mapping[str, Any]) -> str:
    return f"{_printable(message['role'])}: {_printable(_shown_text(message))}"


def _shown_text(message: Mapping[str, str]) -> str:
    """Give what a message says, and each call as a line of its own: `-> price(packs=2, medicine="zinc")`."""
    try:
        calls = calls_of(message)
    except CallError:  # no calls of ours: shown as they stand
        return "\n".join(filter(None, (message["content"], f"-> {message['tool_calls']}")))
    return "\n".join(filter(None, (message["content"], *(f"-> {_call(call)}" for call in calls))))


def _call(call: Call) -> str:
    return f"{call.name}({', '.join(f'{name}={canonical_json(value)}' for name, value in call.arguments.items())})"


def _printable(text: str) -> str:
    """Show no control character to a terminal: it could move the cursor or change colours."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= MAX_LINE_CHARACTERS else plain[: MAX_LINE_CHARACTERS - 1] + "…"


def _html(payload: Columns) -> str:
    bubbles = "".join(_bubble(message) for message in payload["messages"])
    cited = "".join(
        f"<li><q>{escape(one['quote'])}</q> <cite>{escape(one['document'])}</cite></li>" for one in payload["citations"]
    )
    labels = " · ".join(escape(payload[name]) for name in ("intent", "persona", "mood", "edge_case") if payload[name])
    sources = f'<ul class="tercet-citations" style="font-size:.85em">{cited}</ul>' if cited else ""
    caption = f'<div style="color:#667;font-size:.85em">{labels}</div>' if labels else ""
    return f'<div class="tercet-dialog" style="max-width:44em">{caption}{bubbles}{sources}</div>'


def _bubble(message: Mapping[str, str]) -> str:
    role = message["role"] if message["role"] in STYLES else "system"
    return f'<div class="tercet-{role}" style="{STYLES[role]}">{escape(_shown_text(message))}</div>'
