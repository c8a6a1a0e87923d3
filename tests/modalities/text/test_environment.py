"""The simulated tools: a call's result follows from seed, tool and arguments, and nothing raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tercet_text.environment import Domain, Environment, Tool

TOOLS = [
    Tool.model_validate(
        {
            "name": "stock",
            "description": "packs in a branch",
            "parameters": {
                "medicine": {"names": ["zinc", "iron", "<b>", "日本"]},
                "branch": {"enum": ["Harbour", "Station"]},
                "days": {"integer": [-2, 90]},
            },
            "returns": {"packs": {"integer": [0, 1000]}, "price": {"price": [0.5, 9]}},
        }
    ),
    Tool.model_validate(
        {
            "name": "order",
            "description": "state of an order",
            "parameters": {"order": {"pattern": "RX-####"}, "day": {"date": ["2026-01-30", "2026-03-01"]}},
            "returns": {"status": {"enum": ["ready", "lost"]}, "due": {"date": ["2026-01-01", "2026-12-31"]}},
            "fails": {"parameter": "order", "share": 0.2, "error": "no such order"},
        }
    ),
]
WORLD = Environment(TOOLS, seed=5)
STOCK = {"medicine": "zinc", "branch": "Station", "days": 3}
ORDER = {"order": "RX-0000", "day": "2026-02-01"}
DOMAINS = [domain for tool in TOOLS for domain in (*tool.parameters.values(), *tool.returns.values())]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_every_value_of_a_domain_is_found_at_its_place(domain: Domain) -> None:
    places = range(0, domain.size, max(1, domain.size // 300))
    assert [domain.place(domain.at(place)) for place in places] == list(places)
    assert len({domain.at(place) for place in places}) == len(places)


@given(value=junk)
@settings(max_examples=300, deadline=None)
def test_what_is_no_value_has_no_place_and_raises_nothing(value: Any) -> None:
    for domain in DOMAINS:
        place = domain.place(value)
        assert place is None or (domain.at(place) == value and type(domain.at(place)) is type(value))


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        ({"integer": [0, 5]}, True),
        ({"integer": [0, 5]}, 3.0),
        ({"integer": [0, 5]}, "3"),
        ({"pattern": "RX-##"}, "RX-١٢"),
        ({"pattern": "RX-##"}, "RX-123"),
        ({"pattern": "RX-##"}, "rx-12"),
        ({"date": ["2026-01-01", "2026-12-31"]}, "20260105"),
        ({"price": [1, 9]}, "4.5"),
        ({"enum": ["a"]}, ["a"]),
    ],
    ids=str,
)
def test_a_value_must_be_spelt_as_the_domain_spells_it(domain: dict[str, Any], value: Any) -> None:
    assert Domain.model_validate(domain).place(value) is None


def test_the_same_call_gives_the_same_result_in_any_order_of_arguments() -> None:
    first = WORLD.call("stock", STOCK)
    assert set(first) == {"packs", "price"}
    assert WORLD.call("stock", dict(reversed(STOCK.items()))) == first
    assert Environment(TOOLS[::-1], seed=5).call("stock", STOCK) == first


def test_another_seed_tool_or_argument_gives_other_results() -> None:
    days = [{**STOCK, "days": day} for day in range(40)]
    ours = [WORLD.call("stock", arguments)["packs"] for arguments in days]
    other = [Environment(TOOLS, seed=6).call("stock", arguments)["packs"] for arguments in days]
    assert len(set(ours)) > 30
    assert sum(one == two for one, two in zip(ours, other, strict=True)) < 4


def test_another_process_gives_the_same_results() -> None:
    program = (
        "import json, sys; from tercet_text.environment import Environment; held = json.load(sys.stdin); "
        "print(json.dumps(Environment.of(held[0]).call(*held[1]))); assert 'torch' not in sys.modules"
    )
    for name, arguments in (("stock", STOCK), ("order", {**ORDER, "order": "RX-0777"})):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps([WORLD.definition, [name, arguments]]),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "7"},
        )
        assert json.loads(done.stdout) == WORLD.call(name, arguments)


def test_a_definition_rebuilds_the_environment() -> None:
    assert Environment.of(json.loads(json.dumps(WORLD.definition))).definition == WORLD.definition


def test_results_stay_within_their_domains() -> None:
    for number in range(200):
        result = WORLD.call("order", {**ORDER, "order": f"RX-{number:04d}"})
        returns = TOOLS[1].returns
        assert result == {"error": "no such order"} or all(
            returns[name].place(value) is not None for name, value in result.items()
        )


def test_a_share_of_the_ids_is_unknown() -> None:
    results = [WORLD.call("order", {**ORDER, "order": f"RX-{number:04d}"}) for number in range(2000)]
    assert abs(sum("error" in result for result in results) / 2000 - 0.2) < 0.03  # three standard deviations


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("stok", STOCK, "no tool 'stok'; there are stock, order"),
        (["stock"], STOCK, "no tool ['stock']"),
        ("stock", None, "arguments None; a mapping is needed"),
        ("stock", "{}", "arguments '{}'; a mapping is needed"),
        ("stock", {}, "medicine: missing"),
        ("stock", {**STOCK, "colour": "red"}, "'colour': no parameter of stock"),
        ("stock", {**STOCK, "medicine": "gold"}, "medicine: 'gold' is not known"),
        ("stock", {**STOCK, "branch": "harbour"}, "branch: 'harbour' is not Harbour|Station"),
        ("stock", {**STOCK, "days": 91}, "days: 91 is not -2-90"),
        ("order", {**ORDER, "order": "RX-12"}, "order: 'RX-12' is not RX-####"),
        ("order", {**ORDER, "day": "2026-02-30"}, "day: '2026-02-30' is not date"),
    ],
)
def test_a_call_that_breaks_the_schema_is_an_error_result(name: Any, arguments: Any, said: str) -> None:
    result = WORLD.call(name, arguments)
    assert set(result) == {"error"}
    assert result["error"].startswith(said)
    assert WORLD.fault(name, arguments) == result["error"]


@given(name=st.sampled_from(["stock", "order"]) | junk, arguments=junk, value=junk)
@settings(max_examples=200, deadline=None)
def test_no_call_raises_whatever_a_model_decodes(name: Any, arguments: Any, value: Any) -> None:
    for given_arguments in (arguments, {**STOCK, "medicine": value}, {**ORDER, "order": value}):
        assert len(json.dumps(WORLD.call(name, given_arguments))) < 400


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ({}, "no values; give exactly one of"),
        ({"enum": ["a"], "integer": [1, 2]}, "enum and integer; give exactly one"),
        ({"integer": [3, 2]}, "the first is above the last"),
        ({"price": [-1, 2]}, "is below 0"),
        ({"names": ["a", "b", "a"]}, "'a' stands twice"),
        ({"pattern": "RX"}, "match pattern"),
        ({"enum": [True]}, "valid string"),
    ],
)
def test_a_bad_domain_is_refused(domain: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Domain.model_validate(domain)


def test_a_schema_says_what_the_environment_accepts() -> None:
    properties = TOOLS[0].function_schema()["function"]["parameters"]["properties"]
    assert properties == {
        "medicine": {"type": "string"},
        "branch": {"type": "string", "enum": ["Harbour", "Station"]},
        "days": {"type": "integer", "minimum": -2, "maximum": 90},
    }
    assert Domain(pattern="a.#").json_schema()["pattern"] == r"^a\.[0-9]$"
    assert TOOLS[1].signature() == "order(order: RX-####, day: date): state of an order"
