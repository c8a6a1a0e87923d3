"""The plan: keys that stay, a balanced grid, every index computed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.modality import Planning
from tercet.permutation import permute, spread
from tercet.records import Item
from tercet.sources import Document, Example, Term
from tercet_text.plan import TextPlan, plan
from tercet_text.recipe import TextRecipe

MakePlan = Callable[..., TextPlan]
SMALL = {"intents": ["dose", "storage", "comparison"], "personas": ["customer", "expert"], "moods": ["calm", "tired"]}
LLM, ENDPOINT = {"dialogs": 9}, {"dialogs": 9, "url": "http://localhost:1/v1", "model": "m"}


def items_of(planned: TextPlan) -> list[Item]:
    return [planned.item(index) for index in range(len(planned))]


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permute_maps_every_index_to_another(size: int, seed: int) -> None:
    assert sorted(permute(index, size, seed) for index in range(size)) == list(range(size))


@given(count=st.integers(20, 2000), rate=st.floats(0.05, 0.95), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_spread_keeps_a_share_in_every_prefix(count: int, rate: float, seed: int) -> None:
    hits = sum(spread(index, seed) < rate for index in range(count))
    assert abs(hits - rate * count) < 6


@given(few=st.integers(1, 200), more=st.integers(0, 300), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_raising_the_quota_keeps_every_old_item(few: int, more: int, seed: int) -> None:
    terms = (Term("alpha"), Term("beta"), Term("gamma"))
    old = plan(TextRecipe(dialogs=few), Planning(seed, "en", terms))
    new = plan(TextRecipe(dialogs=few + more), Planning(seed, "en", terms))
    assert [item.key for item in items_of(old)] == [new.item(index).key for index in range(few)]


def test_raising_one_generator_keeps_the_items_of_the_others(make_plan: MakePlan) -> None:
    before = {item.key for item in items_of(make_plan(dialogs=20, llm=LLM, endpoint=ENDPOINT))}
    after = {item.key for item in items_of(make_plan(dialogs=50, llm={"dialogs": 12}, endpoint=ENDPOINT))}
    assert before < after


@pytest.mark.parametrize("section", [{}, SMALL, {**SMALL, "moods": ["calm"], "personas": ["customer"]}], ids=len)
def test_no_two_items_share_a_key(make_plan: MakePlan, section: dict[str, Any]) -> None:
    items = items_of(make_plan(dialogs=1500, llm=LLM, endpoint=ENDPOINT, **section))
    assert len({item.key for item in items}) == len(items) == 1518


@pytest.mark.parametrize("count", [1, 7, 130, 400, 528, 1056])
def test_every_prefix_is_balanced(make_plan: MakePlan, count: int) -> None:
    """528 is one round of 11 intents x 8 personas x 6 moods."""
    items = items_of(make_plan(dialogs=count))
    intents = Counter(item.cell["intent"] for item in items)
    assert len(intents) == min(count, 11)
    assert max(intents.values()) - min(intents.values()) <= 1
    pairs = Counter((item.cell["intent"], item.cell["persona"]) for item in items)
    assert max(pairs.values()) - (min(pairs.values()) if len(pairs) == 88 else 0) <= 1
    cells = Counter(tuple(sorted(item.cell.items())) for item in items)
    assert max(cells.values()) == -(-count // 528)


def test_every_term_is_used_before_one_is_used_again(make_plan: MakePlan) -> None:
    for start in (0, 16, 160):
        planned = make_plan(dialogs=200)
        assert len({planned.item(index).spec["term"] for index in range(start, start + 16)}) == 16


def test_edge_cases_come_at_the_recipes_rate_and_each_kind_evenly(make_plan: MakePlan) -> None:
    kinds = Counter(item.spec["edge_case"] for item in items_of(make_plan(dialogs=900, edge_cases={"rate": 0.45})))
    without = kinds.pop("")
    assert abs(without - 495) <= 10
    assert len(kinds) == 9
    assert max(kinds.values()) - min(kinds.values()) <= 6


def test_a_rate_of_zero_plans_no_edge_case(make_plan: MakePlan) -> None:
    assert {item.spec["edge_case"] for item in items_of(make_plan(dialogs=99, edge_cases={"rate": 0}))} == {""}


def test_held_out_scenarios_never_occur_in_training(make_plan: MakePlan) -> None:
    cells: dict[str, set[Any]] = {"train": set(), "held_out": set()}
    for item in items_of(make_plan(dialogs=1100, llm={"dialogs": 300}, test=0.2)):
        cells[item.split].add(tuple(sorted(item.cell.items())))
    assert not cells["train"] & cells["held_out"]
    assert len(cells["held_out"]) == round(0.2 * 528)


def test_turns_stay_within_the_recipes_range(make_plan: MakePlan) -> None:
    planned = make_plan(dialogs=200, turns=[2, 5], llm={"dialogs": 50, "turns": [2, 2]})
    grammar = [planned.item(index).spec["turns"] for index in range(200)]
    assert set(grammar) == {2, 3, 4, 5}
    assert {planned.item(index).spec["turns"] for index in range(200, 250)} == {2}


def test_a_million_items_are_planned_without_a_list(make_plan: MakePlan) -> None:
    planned = make_plan(dialogs=100_000_000)
    assert len(planned) == 100_000_000
    assert planned.item(99_999_999).key == planned.item(99_999_999).key
    with pytest.raises(IndexError):
        planned.item(100_000_000)


def test_planned_quotes_stand_in_the_documents_word_for_word(make_plan: MakePlan, planning: Planning) -> None:
    texts = {document.name: document.text for document in planning.documents}
    asks = [ask for item in items_of(make_plan(dialogs=300)) for ask in (*item.spec["asks"], item.spec["detour"])]
    quotes = [quote for ask in asks for quote in ask["quotes"]]
    assert len(quotes) > 300
    assert all(quote["quote"] in texts[quote["document"]] for quote in quotes)
    assert {ask["kind"] for ask in asks} == {"answer", "partial", "general", "none"}


def test_a_changed_document_changes_the_items_that_quote_it_and_no_other(
    make_plan: MakePlan, planning: Planning
) -> None:
    changed = [Document(document.name, document.text.replace("28 days", "30 days")) for document in planning.documents]
    before, after = (
        items_of(make_plan(dialogs=300)),
        items_of(make_plan(replace(planning, documents=changed), dialogs=300)),
    )
    touched = {old.index for old in before if "28 days" in str(old.spec)}
    assert touched
    assert {old.index for old, new in zip(before, after, strict=True) if old.key != new.key} == touched


@pytest.mark.parametrize(
    ("terms", "documents", "expected"),
    [
        ((), (), "paracetamol"),
        (
            (),
            (Document("a.md", "# A\n\n## Red pump\n\nIt turns to the left only.\n\n## Blue pump\n\nNo.\n"),),
            "Red pump",
        ),
        ((Term("x"),), (), "x"),
    ],
    ids=["nothing", "documents alone", "one term"],
)
def test_a_plan_needs_no_term_list(terms: Sequence[Term], documents: Sequence[Document], expected: str) -> None:
    items = items_of(plan(TextRecipe(dialogs=40), Planning(1, "en", terms, documents=documents)))
    assert expected in {item.spec["term"] for item in items}
    if len(terms) == 1:
        assert not {"correction", "topic_switch", "ambiguous_term"} & {item.spec["edge_case"] for item in items}


def rows(count: int) -> tuple[Example, ...]:
    return tuple(Example({"messages": [{"role": "user", "content": f"q{n}"}], "n": n}) for n in range(count))


@pytest.mark.parametrize(("available", "expected"), [(500, 100), (30, 30), (0, 0)])
def test_examples_take_their_share_of_the_train_split_at_most(
    planning: Planning, available: int, expected: int
) -> None:
    real = replace(planning, examples=rows(available), real_fraction=0.2)
    planned = plan(TextRecipe(dialogs=400, test=0), real)
    items = items_of(planned)
    assert sum(item.generator == "examples" for item in items) == expected
    assert len({item.key for item in items}) == len(items)


def test_the_held_out_split_gives_no_room_to_examples(planning: Planning) -> None:
    planned = plan(TextRecipe(dialogs=528, test=0.5), replace(planning, examples=rows(900), real_fraction=0.5))
    splits = Counter((item.generator, item.split) for item in items_of(planned))
    assert splits["examples", "train"] == splits["grammar", "train"] == 264


def test_an_example_given_twice_is_planned_once(planning: Planning) -> None:
    planned = plan(TextRecipe(), replace(planning, examples=rows(3) + rows(3), real_fraction=0.2))
    assert len(planned) == 3


def test_a_term_too_short_to_misspell_is_never_misspelt(planning: Planning) -> None:
    short = replace(planning, terms=(Term("B6"), Term("zinc"), Term("pH 7")))
    edge_cases = {"rate": 1, "kinds": ["misspelt_term"]}
    items = items_of(plan(TextRecipe.model_validate({"dialogs": 60, "edge_cases": edge_cases}), short))
    assert {item.spec["term"] for item in items if item.spec["edge_case"]} == {"zinc"}
