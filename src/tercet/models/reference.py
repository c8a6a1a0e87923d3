"""Model references: `hf:owner/name[@revision]`, `path:./dir`, `pkg:distribution`, `bundled:modality/name`, `auto`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tercet.errors import ModelError
from tercet.records import ModelUse

SCHEMES = ("hf", "path", "pkg", "bundled", "auto")
FORMS = "hf:owner/name[@revision], path:./dir, pkg:distribution, bundled:modality/name, or auto"
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
_REVISION = re.compile(r"^[A-Za-z0-9][\w./-]{0,127}$")
_BUNDLED = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}/[a-z0-9][a-z0-9_-]{0,63}$")
_DISTRIBUTION = re.compile(r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; `revision` is for the hub alone."""

    scheme: str
    name: str
    revision: str = ""

    def __str__(self) -> str:
        """Spell it as a recipe does."""
        if self.scheme == "auto":
            return "auto"
        return f"{self.scheme}:{self.name}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    `path` is a folder in Hugging Face's layout, `digest` names its weights, `reference` is what was chosen (never
    `auto`), `origin` is where the weights came from, in words, and `chosen_because` says why `auto` took it.
    """

    reference: str
    path: Path
    digest: str
    licence: str
    output_terms: str
    origin: str
    chosen_because: str = ""

    @property
    def use(self) -> ModelUse:
        """Give what a record's lineage says of the model."""
        return ModelUse(self.reference, self.digest, self.licence, self.output_terms)


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        ModelError: `text` has none of the forms.
    """
    scheme, colon, name = text.strip().partition(":")
    if scheme == "auto" and not colon:
        return Reference("auto", "")
    revision = ""
    if scheme == "hf":
        name, _, revision = name.partition("@")
    well_formed = {
        "hf": bool(_HUB_NAME.match(name)) and ".." not in name and (not revision or bool(_REVISION.match(revision))),
        "path": bool(name.strip()) and "\0" not in name,
        "pkg": bool(_DISTRIBUTION.match(name)),
        "bundled": bool(_BUNDLED.match(name)),
    }
    if not well_formed.get(scheme, False):
        raise ModelError(f"model reference {text!r} has an unknown form; write {FORMS}")
    return Reference(scheme, name, revision)
