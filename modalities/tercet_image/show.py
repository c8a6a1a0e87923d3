"""A picture for human eyes."""

from __future__ import annotations

import base64
from html import escape

from tercet.modality import Shown
from tercet.records import Columns


def show(columns: Columns) -> Shown:
    """Show the picture with its caption and questions; the HTML needs no network."""
    data = base64.b64encode(columns["image"]).decode()
    text = "".join(letter if letter.isprintable() else " " for letter in columns["caption"])  # no escape sequences
    asked = "".join(
        f"<li>{escape(question['question'])} <b>{escape(question['answer'])}</b></li>"
        for question in columns["questions"]
    )
    html = (
        f'<figure class="tercet-picture"><img src="data:image/png;base64,{data}" alt="{escape(text, quote=True)}">'
        f"<figcaption>{escape(text)}</figcaption><ul>{asked}</ul></figure>"
    )
    return Shown(text, html)
