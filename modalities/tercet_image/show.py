"""A picture for human eyes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from tercet.modality import Shown
from tercet.records import Columns


def show(columns: Columns) -> Shown:
    """Show the picture with its caption and questions; the HTML needs no network."""
    text = _printable(columns["caption"])
    asked = "".join(
        f"<li>{escape(question['question'])} <b>{escape(question['answer'])}</b></li>"
        for question in columns["questions"]
    )
    html = (
        f'<figure class="tercet-picture">{_embedded(columns["image"], text)}'
        f"<figcaption>{escape(text)}</figcaption><ul>{asked}</ul></figure>"
    )
    return Shown(text, html)


def show_pictures(files: Sequence[bytes], said: str) -> Shown:
    """Show PNG files side by side, with what is said of them."""
    text = _printable(said)
    count = "1 picture" if len(files) == 1 else f"{len(files)} pictures"
    pictures = "".join(_embedded(file, text) for file in files)
    caption = f"<figcaption>{escape(text)}</figcaption>" if text else ""
    return Shown(" ".join(filter(None, (f"({count})" if files else "", text))), f"<figure>{pictures}{caption}</figure>")


def _embedded(file: bytes, alt: str) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(file).decode()}" alt="{escape(alt, quote=True)}">'


def _printable(text: str) -> str:
    """Show no control character to a terminal: it could move the cursor or change colours."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
