"""Let only harmless HTML into a page: a plug-in's `show` handles what users and models wrote.

Plug-ins escape what they show; this is the second wall, behind which the page's content security policy is a third.
"""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

TAGS = frozenset(
    [
        "a",
        "article",
        "aside",
        "audio",
        "b",
        "blockquote",
        "br",
        "caption",
        "cite",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "ins",
        "kbd",
        "li",
        "mark",
        "ol",
        "p",
        "pre",
        "q",
        "s",
        "section",
        "small",
        "span",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "u",
        "ul",
    ]
)
VOID = frozenset({"br", "hr", "img"})
SILENT = frozenset({"script", "style", "template", "iframe", "object", "svg", "math", "noscript", "textarea", "title"})
ATTRIBUTES = frozenset(
    {"alt", "class", "colspan", "controls", "dir", "height", "lang", "loading", "open", "preload", "role", "rowspan"}
    | {"scope", "title", "width"}
)
MEDIA = re.compile(r"data:(?:audio|image)/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE)


def sanitise(fragment: str) -> str:
    """Return `fragment` with the allowed tags and attributes alone, every tag closed.

    `src` may hold `data:` audio and pictures; style, scripts, links and event handlers are dropped, a forbidden tag's
    text is kept except where it never was text.
    """
    cleaner = _Cleaner()
    cleaner.feed(fragment)
    cleaner.close()
    return cleaner.result()


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SILENT:
            self._silent.append(tag)
        if self._silent or tag not in TAGS:
            return
        self._out.append(f"<{tag}{''.join(self._attributes(attrs))}>")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag == self._silent[-1]:
                self._silent.pop()
            return
        if tag not in self._open:
            return
        while (last := self._open.pop()) != tag:
            self._out.append(f"</{last}>")
        self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._out.append(html.escape(data))

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> list[str]:
        kept = []
        for name, value in attrs:
            is_media = name == "src" and MEDIA.fullmatch(value or "")
            if is_media or name in ATTRIBUTES or name.startswith("aria-"):
                kept.append(f" {name}" if value is None else f' {name}="{html.escape(value)}"')
        return kept

    def result(self) -> str:
        """Close what is open and return everything."""
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))
