"""Every installed modality keeps the contract; each fault that the contract names is caught."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from tercet import registry, testing
from tercet.errors import UsageError
from tercet.modality import PayloadType, Planning
from tercet.randomness import digest
from tercet.records import Columns, Item
from tercet.sources import Document, Term
from tercet.testing import HOSTILE, check_modality

PLANNING = Planning(
    seed=3,
    language="en",
    terms=[Term(name, "", "") for name in ("atorvastatin", "metformin", "omeprazole", "sertraline", "warfarin")],
    documents=[Document("storage.md", "Metformin is kept in a dry place. Warfarin is kept away from children.")],
)
# modality -> (section, the same with a raised quota); None where the section has no quota
SMALL_SPEECH = {
    "clips": 9,
    "held_out": {"phrase_clips": 4, "engine_clips": 4, "term_clips": 4},
    "general": {"clips": 4, "replay_clips": 4},
    "gates": {"round_trip": {"calibration_sentences": 0}},  # no voice is measured here: a minute each
}
SECTIONS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "audio": (SMALL_SPEECH, {**SMALL_SPEECH, "clips": 400, "general": {"clips": 40, "replay_clips": 4}}),
    "text": ({"dialogs": 12}, {"dialogs": 40}),
    "image": ({"pictures": 12}, {"pictures": 40}),
}


@pytest.mark.parametrize("name", sorted(registry.modalities()))
def test_the_modality_keeps_the_contract(name: str) -> None:
    section, larger = SECTIONS.get(name, ({}, None))
    check_modality(registry.modality(name), section, larger_data=larger, planning=PLANNING)


class Numbered:
    """A plan of `count` items; `spec_of` decides what tells them apart."""

    def __init__(self, count: int, spec_of: Callable[[int], Any]) -> None:
        self.count, self.spec_of = count, spec_of

    def __len__(self) -> int:
        return self.count

    def item(self, index: int) -> Item:
        return Item("toy", "maker", "train", {"is": self.spec_of(index)}, index)


def test_two_items_with_one_key_are_caught() -> None:
    assert len(testing.check_plan(Numbered(5, lambda index: index))) == 5
    with pytest.raises(AssertionError, match="share a key"):
        testing.check_plan(Numbered(5, lambda index: index % 3))


def test_a_plan_that_depends_on_the_order_of_asking_is_caught() -> None:
    asked: list[int] = []

    def count(index: int) -> int:
        asked.append(index)
        return len(asked)

    with pytest.raises(AssertionError, match="another order"):
        testing.check_plan(Numbered(5, count))


def text_payload(fingerprint: Callable[[Columns], str]) -> PayloadType:
    return PayloadType(1, pa.schema([("text", pa.string()), ("note", pa.string())]), {}, fingerprint)


def test_a_payload_that_lacks_a_column_is_caught() -> None:
    with pytest.raises(AssertionError, match="the schema has"):
        testing.check_payload(text_payload(lambda columns: digest(dict(columns))), {"text": "a"})


def test_a_fingerprint_that_depends_on_the_order_of_the_columns_is_caught() -> None:
    payload = {"text": "a", "note": "b"}
    testing.check_payload(text_payload(lambda columns: digest(dict(columns))), payload)
    with pytest.raises(AssertionError):
        testing.check_payload(text_payload(lambda columns: digest(repr(columns))), payload)


def test_a_name_that_leads_nowhere_is_caught() -> None:
    modality = replace(registry.modality("text"), recipe_model="tercet_text:nothing_here")
    with pytest.raises(UsageError, match=re.escape("names no attribute of tercet_text")):
        testing.check_names(modality)


def test_the_hostile_copy_reaches_every_text() -> None:
    hostile = testing._hostile({"messages": [{"role": "user", "content": "x"}], "count": 3})
    assert hostile == {"messages": [{"role": f"user{HOSTILE}", "content": f"x{HOSTILE}"}], "count": 3}


def test_a_missing_program_skips_and_fails_where_all_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TERCET_REQUIRE_ALL", "0")
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        testing.require_program("no-such-program")
    monkeypatch.setitem(os.environ, "TERCET_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="TERCET_REQUIRE_ALL=1"):
        testing.require_program("no-such-program")
    assert testing.require_program("sh").endswith("/sh")
