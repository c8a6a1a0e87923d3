"""The tool file: what is refused, with its line, and what the shipped one holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tercet.errors import RecipeError, SourceError, UsageError
from tercet.modality import Planning
from tercet.sources import Term
from tercet_text.phrases import certain_slots, parse
from tercet_text.plan import plan
from tercet_text.recipe import TextRecipe
from tercet_text.tool_file import read_tools

SHIPPED = Path(__file__).parents[3] / "recipes" / "support" / "tools.yaml"
GOOD = """\
version: 1
tools:
  - name: order_status
    description: state of an order
    parameters:
      order: {pattern: "RX-####"}
      branch: {enum: [Harbour, Station]}
    returns:
      status: {enum: [ready, lost]}
    fails: {parameter: order, error: no such order}
    phrases:
      ask:
        - "where is <order> at <branch>?"
        - "[is <order> at <branch>|does <branch> have <order>]?"
      report:
        - "<order> is <status>."
      failed:
        - "There is <error>."
      missing:
        branch:
          ask:
            - "where is <order>?"
            - "any news on <order>?"
          question: ["Which branch?"]
          answer: ["<branch>."]
chats:
  - name: weather
    ask: ["will it rain?", "is it cold?"]
    reply: ["I only know orders."]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "tools.yaml"
    path.write_text(text)
    return path


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    file = read_tools(write(tmp_path, GOOD))
    assert [tool.name for tool in file.tools] == ["order_status"]
    assert file.tools[0].phrases.missing["branch"].answer == ("<branch>.",)


def test_the_shipped_file_is_sound_and_holds_five_tools() -> None:
    file = read_tools(SHIPPED)
    assert len(file.tools) == 5
    assert all(len(tool.phrases.ask) >= 8 for tool in file.tools)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "tools.yaml:1: version: Input should be 1"),
        ("version: 1\n", "", "tools.yaml:1: version: missing; add this key"),
        ("    description: state of an order\n", "", "tools.yaml:3: tools.0.description: missing"),
        ("name: order_status", "name: Order", "tools.yaml:3: tools.0.name: String should match"),
        ("fails:", "fail:", "tools.yaml:10: tools.0.fail: unknown key"),
        ("[Harbour, Station]", "[Harbour, Harbour]", "tools.yaml:7: tools.0.parameters.branch: 'Harbour' stands twice"),
        ("{enum: [ready, lost]}", "{price: [0, .inf]}", "status.price.1: Input should be a finite number"),
        ("{enum: [ready, lost]}", "{price: [.nan, 2]}", "status.price.0: Input should be a finite number"),
        ("{enum: [ready, lost]}", "{price: [0, 1e308]}", "status.price.1: Input should be less than or equal to"),
        ("{enum: [Harbour, Station]}", "{price: [1, 2]}", "tools.yaml:7: tools.0.parameters.branch: price is no kind"),
        ("status: {enum: [ready, lost]}", "status: {}", "tools.yaml:9: tools.0.returns.status: no values; give"),
        ("status: {enum: [ready, lost]}", "status: {terms: true}", "tools.yaml:9: tools.0.returns.status: terms is no"),
        ("status: {enum", "order: {enum", "tools.yaml:9: tools.0.returns.order: 'order' is taken"),
        ("status: {enum", "error: {enum", "tools.yaml:9: tools.0.returns.error: 'error' is taken"),
        ("RX-####", "RX", "tools.yaml:6: tools.0.parameters.order.pattern: String should match"),
        ("parameter: order", "parameter: status", "tools.yaml:10: tools.0.fails.parameter: 'status' is no parameter"),
        ("where is <order> at <branch>?", "where is <order>?", "tools.yaml:13: tools.0.phrases.ask.0: phrase"),
        ("does <branch> have <order>", "where is it", "put <order> into every choice"),
        ("[is <order>", "is <order>", "tools.yaml:14: tools.0.phrases.ask.1: phrase"),
        ("<order> is <status>.", "<order> is <state>.", "tools.yaml:16: tools.0.phrases.report.0: phrase"),
        ("There is <error>.", "There is <status>.", "tools.yaml:18: tools.0.phrases.failed.0: phrase"),
        ("      failed:\n        - \"There is <error>.\"\n", "", "tools.yaml:11: tools.0.phrases: failed: missing"),
        ("        branch:\n          ask", "        shop:\n          ask", "'shop' is no parameter; choose from"),
        ('"any news on <order>?"', '"at <branch>, <order>?"', "tools.yaml:23: tools.0.phrases.missing.branch.ask.1"),
        ('answer: ["<branch>."]', 'answer: ["this one."]', "tools.yaml:25: tools.0.phrases.missing.branch.answer.0"),
        ('ask: ["will it rain?", "is it cold?"]', 'ask: ["will it rain?"]', "tools.yaml:28: chats.0.ask: give at"),
        ("I only know orders.", "I know <order>.", "tools.yaml:29: chats.0.reply.0: phrase 'I know <order>.': <order>"),
        ("name: weather", "name: &a weather", ""),
        ("will it rain?", "[[[[[[[[[[[[[[", "nest deeper"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    if not said:
        assert read_tools(path).chats[0].name == "weather"
        return
    with pytest.raises(RecipeError) as caught:
        read_tools(path)
    first, *others = str(caught.value).splitlines()
    assert said in first
    assert len(others) <= 1  # a field renamed is missed in a report, too; a choice can lack two slots


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tools.yaml:1: a tool file is a mapping"),
        ("- a\n", "tools.yaml:1: a tool file is a mapping"),
        ("version: 1\ntools: []\n", "tools.yaml:2: tools: an empty list"),
        ("version: 1\nversion: 1\n", "tools.yaml:2: version: given twice"),
        ("a: &x [1]\nb: *x\n", "tools.yaml:2: alias *x"),
        ("a: [\n", "not YAML"),
        ("a: !!python/object:os.system {}\n", "not YAML"),
    ],
    ids=range(7),
)
def test_what_is_no_tool_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_tools(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SourceError, match=r"nowhere/tools.yaml: no such file"):
        read_tools(Path("nowhere/tools.yaml"))


def test_two_tools_of_one_name_are_refused(tmp_path: Path) -> None:
    data = yaml.safe_load(GOOD)
    path = write(tmp_path, json.dumps({**data, "tools": data["tools"] * 2}))
    with pytest.raises(RecipeError, match=r"tools.1.name: 'order_status' stands twice"):
        read_tools(path)


def test_more_terms_than_a_record_can_carry_are_refused() -> None:
    section = TextRecipe.model_validate({"tools": {"dialogs": 5, "file": SHIPPED.name}})
    terms = [Term(f"term {number}") for number in range(501)]
    with pytest.raises(UsageError, match=r"sources.terms: 501 terms; the tool check_stock takes at most 500"):
        plan(section, Planning(1, "en", terms, root=str(SHIPPED.parent)))


@pytest.mark.parametrize(
    ("phrase", "certain"),
    [
        ("<a> and <b>", {"a", "b"}),
        ("[<a>|<a> or <b>]", {"a"}),
        ("[<a>|]", set()),
        ("[[<a>|x <a>]|<a>] <c>", {"a", "c"}),
        ("plain", set()),
    ],
)
def test_certain_slots_are_those_of_every_choice(phrase: str, certain: set[str]) -> None:
    assert certain_slots(parse(phrase)) == certain
