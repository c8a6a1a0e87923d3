"""A small world for the text tests: terms, documents, and a way to make dialogs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tercet.modality import NoAnswers, Planning, Resources
from tercet.records import Candidate, Item
from tercet.sources import Document, Term
from tercet_text.grammar import GrammarDialogs
from tercet_text.plan import TextPlan, plan
from tercet_text.recipe import TextRecipe

TERMS = tuple(
    Term(text)
    for text in (
        "amoxicillin", "ibuprofen", "metformin", "warfarin", "salbutamol", "insulin", "cetirizine", "omeprazole",
        "folic acid", "prednisolone", "furosemide", "sertraline", "zopiclone", "apixaban", "ramipril", "doxycycline",
    )
)  # fmt: skip
DOCUMENTS = (
    Document(
        "storage.md",
        "# Storage guide\n\nMost medicines are kept below 25 degrees, dry and away from light.\n\n## Insulin\n\n"
        "Unopened pens are stored in the fridge between 2 and 8 degrees. A pen in use keeps for 28 days\n"
        "at room temperature.\n\n- Amoxicillin suspension is stored in the fridge and thrown away after 7 days.\n"
        "- Salbutamol inhalers must not be kept near a radiator.\n",
    ),
    Document(
        "counter.md",
        "# Counter handbook\n\nIbuprofen is taken with food, at most three times a day. Warfarin must not be combined "
        "with aspirin without the doctor's word. Orders placed before noon are available for collection from four.\n\n"
        "Metformin can upset the stomach in the first weeks.\n",
    ),
)
PLANNING = Planning(7, "en", TERMS, documents=DOCUMENTS)
RESOURCES = Resources(7, "en", cores=1, answers=NoAnswers())


@pytest.fixture
def planning() -> Planning:
    return PLANNING


@pytest.fixture
def resources() -> Resources:
    return RESOURCES


@pytest.fixture
def make_plan() -> Callable[..., TextPlan]:
    def build(planning: Planning = PLANNING, **section: Any) -> TextPlan:
        return plan(TextRecipe.model_validate(section), planning)

    return build


@pytest.fixture
def make_dialogs() -> Callable[..., list[Candidate]]:
    """Make grammar dialogs, ready to be judged."""

    def build(count: int, planning: Planning = PLANNING, **section: Any) -> list[Candidate]:
        recipe = TextRecipe.model_validate({"dialogs": count, **section})
        planned = plan(recipe, planning)
        items: Sequence[Item] = [planned.item(index) for index in range(count)]
        made = GrammarDialogs(recipe, RESOURCES)(items)
        return [Candidate(item, one.payload, one.parameters) for item, one in zip(items, made, strict=True)]

    return build
