"""What tests lean on: programs a machine may lack, and the contract that every modality keeps.

A plug-in's own test suite imports `check_modality` from here; it needs pytest and nothing else beyond tercet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from tercet import registry
from tercet.modality import Modality, NoAnswers, PayloadType, Plan, Planning, Resources
from tercet.records import Candidate, Columns, Failure, Item, Made, Verdict

HEAVY = ("torch", "transformers", "diffusers", "peft", "whisper", "TTS", "hibari", "py_nanotts", "espeakng_loader")
HOSTILE = "<script>alert(1)</script>"


def require_program(name: str) -> str:
    """Return the path of a program; skip the test where it is absent, or fail it when TERCET_REQUIRE_ALL is 1."""
    found = shutil.which(name)
    if found:
        return found
    message = f"the program {name!r} is not installed"
    if os.environ.get("TERCET_REQUIRE_ALL") == "1":
        pytest.fail(f"{message}, and TERCET_REQUIRE_ALL=1 asks for it")
    pytest.skip(message)


def check_modality(
    modality: Modality,
    section_data: Mapping[str, Any],
    *,
    larger_data: Mapping[str, Any] | None = None,
    planning: Planning | None = None,
    make: int = 3,
) -> None:
    """Assert that `modality` keeps its contract, on a small recipe section.

    Args:
        modality: the plug-in's value.
        section_data: what a recipe holds under `modalities.<name>`; its generators must work offline.
        larger_data: the same section with a raised quota; the smaller plan's keys must all be in its plan.
        planning: the user's sources; default: none, seed 0, English.
        make: how many of the plan's items to generate and judge.
    """
    planning = planning or Planning(seed=0, language="en")
    check_names(modality)
    check_light_import(modality)
    kit = _Kit.build(modality, section_data, planning)
    keys = check_plan(kit.plan)
    if larger_data is not None:
        larger = _Kit.build(modality, larger_data, planning)
        assert len(larger.plan) > len(kit.plan), "the larger section plans no more items"
        assert keys <= check_plan(larger.plan), "raising the quota dropped items that were planned before"
    candidates = kit.make(make)
    for candidate in candidates:
        check_payload(kit.payload, candidate.payload)
    kit.check_gates(candidates)
    kit.check_show(candidates[0].payload)


def check_names(modality: Modality) -> None:
    """Assert that every "module:attribute" of the plug-in can be loaded."""
    single = [modality.recipe_model, modality.payload, modality.plan, modality.show, modality.checks]
    tables = [modality.generators, modality.gates, modality.corpus_gates, modality.tasks, modality.metrics]
    named = [*single, *(name for table in [*tables, modality.commands] for name in table.values())]
    for name in filter(None, named):
        registry.load(name, modality.extra)


def check_light_import(modality: Modality) -> None:
    """Assert that a fresh process which loads the plug-in's recipe model has imported nothing heavy."""
    code = (
        "import sys; from tercet import registry; "
        f"plug_in = registry.modality({modality.name!r}); registry.load(plug_in.recipe_model); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"importing {modality.name} pulls in {done.stdout.strip()}"


def check_plan(plan: Plan) -> set[str]:
    """Assert that a plan gives the same items in any order, each with its own key and index; return the keys."""
    count = len(plan)
    assert count > 0, "the plan is empty"
    first = [plan.item(index) for index in range(count)]
    again = [plan.item(index) for index in reversed(range(count))][::-1]
    assert first == again, "asking for the items in another order changes them"
    assert len(plan) == count, "the plan's length changed while it was read"
    assert [item.index for item in first] == list(range(count))
    keys = {item.key for item in first}
    assert len(keys) == count, f"{count - len(keys)} items share a key with another"
    return keys


def check_payload(payload_type: PayloadType, payload: Columns) -> None:
    """Assert that a payload fits its Arrow schema and that its fingerprint ignores the order of the columns."""
    schema = payload_type.columns
    assert set(payload) == set(schema.names), f"payload has {sorted(payload)}; the schema has {sorted(schema.names)}"
    row = {
        name: {"bytes": value, "path": f"x.{payload_type.media[name]}"} if name in payload_type.media else value
        for name, value in payload.items()
    }
    read = pa.Table.from_pylist([row], schema=schema).to_pylist()[0]
    for name in payload:
        assert (read[name] is None) == (row[name] is None), f"column {name!r} was lost in the schema"
    assert set(payload_type.features) <= set(schema.names), "a Hugging Face feature names a column that isn't there"
    assert set(payload_type.media) <= set(payload_type.features), "a media column needs its Hugging Face feature"
    assert payload_type.fingerprint(payload) == payload_type.fingerprint(_reordered(payload))


@dataclass(frozen=True)
class _Kit:
    """A modality with one recipe section, planned and ready to make payloads in this process."""

    modality: Modality
    section: Any
    plan: Plan
    payload: PayloadType
    resources: Resources

    @classmethod
    def build(cls, modality: Modality, section_data: Mapping[str, Any], planning: Planning) -> _Kit:
        extra = modality.extra
        section = registry.load(modality.recipe_model, extra).model_validate(section_data)
        plan: Plan = registry.load(modality.plan, extra)(section, planning)
        resources = Resources(planning.seed, planning.language, cores=1, answers=NoAnswers())
        return cls(modality, section, plan, registry.load(modality.payload, extra), resources)

    def make(self, count: int) -> list[Candidate]:
        """Generate the plan's first `count` items twice, each twice the same."""
        items = [self.plan.item(index) for index in range(min(count, len(self.plan)))]
        made = self._generate(items)
        again = self._generate(items)
        fingerprint = self.payload.fingerprint
        for one, other in zip(made, again, strict=True):
            assert fingerprint(one.payload) == fingerprint(other.payload), "the same item made another payload"
        pairs = zip(items, made, strict=True)
        return [Candidate(item, one.payload, one.parameters, slot) for slot, (item, one) in enumerate(pairs)]

    def _generate(self, items: Sequence[Item]) -> list[Made]:
        made: list[Made] = []
        for item in items:
            generator = registry.load(self.modality.generators[item.generator], self.modality.extra)
            answers = list(generator(self.section, self.resources)([item]))
            assert len(answers) == 1, f"generator {item.generator!r} gave {len(answers)} answers for one item"
            assert not isinstance(answers[0], Failure), answers[0]
            made.append(answers[0])
        return made

    def check_gates(self, candidates: Sequence[Candidate]) -> None:
        """Assert that each gate the section fills gives one verdict per candidate, for any size of batch."""
        sections = getattr(self.section, "gates", None)
        for table in (self.modality.gates, self.modality.corpus_gates):
            for name, code in table.items():
                gate_section = getattr(sections, name, None)
                if gate_section is not None:
                    gate = registry.load(code, self.modality.extra)(gate_section, self.resources)
                    verdicts: list[Verdict] = list(gate(list(candidates)))
                    assert len(verdicts) == len(candidates), f"gate {name!r} gave {len(verdicts)} verdicts"
                    assert all(verdict.passed or verdict.reason for verdict in verdicts), f"gate {name!r} has no reason"

    def check_show(self, payload: Columns) -> None:
        """Assert that a record's HTML escapes what the record holds."""
        if self.modality.show:
            shown = registry.load(self.modality.show, self.modality.extra)(_hostile(payload))
            assert shown.text.strip(), "the line for the terminal is empty"
            assert HOSTILE not in shown.html, "show() writes a payload's text into HTML without escaping it"


def _reordered(value: Any) -> Any:
    """Copy a JSON value with the keys of every mapping in reverse order."""
    if isinstance(value, Mapping):
        return {key: _reordered(value[key]) for key in reversed(list(value))}
    return [_reordered(one) for one in value] if isinstance(value, list) else value


def _hostile(value: Any) -> Any:
    """Copy a JSON value with a script tag appended to every text."""
    if isinstance(value, Mapping):
        return {key: _hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_hostile(one) for one in value]
    return value + HOSTILE if isinstance(value, str) else value
