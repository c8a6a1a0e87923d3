"""Licences and what they allow, above all whether a model's output may train another one commercially."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tercet.errors import TermsError
from tercet.modality import Check

# the licence names of model cards; anything else is "unknown" until somebody has read it
FREE = re.compile(r"^(apache-2\.0|mit|bsd(-[234]-clause)?|isc|unlicense|cc0-1\.0|cc-by-[34]\.0|postgresql|zlib)$")
RESEARCH = re.compile(r"(-nc(-|$)|non-?commercial|research)")


def output_terms_of(licence: str) -> str:
    """Judge a licence name: "free", "research" (non-commercial) or "unknown"."""
    name = licence.strip().lower()
    if FREE.match(name):
        return "free"
    return "research" if RESEARCH.search(name) else "unknown"


def licence_in(folder: Path) -> str:
    """Read the licence that a model card declares in its front matter; "unknown" when it declares none."""
    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    front = re.match(r"\A---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    fields = dict(re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([\w.+-]+)", front[1], re.MULTILINE)) if front else {}
    licence = fields.get("license", "unknown")
    return str(fields.get("license_name", licence) if licence == "other" else licence)


def check_terms(use: str, accept_terms: Sequence[str], checks: Iterable[Check]) -> list[str]:
    """Hold the terms of every model and engine a recipe uses against the declared `use`.

    Returns a note per accepted or non-free one. A check without `output_terms` is about something else and is skipped.

    Raises:
        TermsError: `use` is commercial and terms are not free, and `accept_terms` doesn't name them.
    """
    notes, refused = [], []
    for check in checks:
        if check.output_terms in ("", "free"):
            continue
        said = f"{check.name}: output terms are {check.output_terms!r} (licence {check.licence or 'unknown'})"
        if use != "commercial":
            notes.append(f"{said}; fine for research")
        elif check.name in accept_terms:
            notes.append(f"{said}; accepted by accept_terms")
        else:
            refused.append(f"{said}; choose another, or after reading its terms add accept_terms: [{check.name}]")
    if refused:
        raise TermsError("use: commercial: " + "\nuse: commercial: ".join(refused))
    return notes
