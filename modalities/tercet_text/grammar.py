"""The scenario grammar: whole dialogs without a model, on every machine, always the same for the same item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from tercet.modality import Needs, Resources
from tercet.randomness import digest
from tercet.records import Item, Made, ModelUse
from tercet_text.dialog import payload_of, system_message
from tercet_text.recipe import TextRecipe
from tercet_text.script import Cast, Script

VERSION = "1"  # raise it when the same item would be written otherwise
GRAMMAR = ModelUse("tercet_text:grammar", digest("tercet_text:grammar", VERSION), "Apache-2.0", "free")


class GrammarDialogs:
    """Writes both parts of a dialog from the item's scenario."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 256

    def __init__(self, section: TextRecipe, resources: Resources) -> None:
        self._cast = Cast(section)
        self._system = system_message(section.role) if section.system else ""
        self._resources = resources

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        """Write one dialog per item."""
        for item in items:
            script = Script(self._cast, item.spec, self._resources.seed_for(item, "generate"))
            payload = payload_of(item.spec, script.exchanges(), self._system)
            yield Made(payload, GRAMMAR, {"grammar_version": VERSION})
