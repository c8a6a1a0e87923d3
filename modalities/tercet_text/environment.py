"""Simulated tools: what a call gives follows from the environment's seed, the tool and the arguments, and nothing else.

So anybody who holds a record can execute a call that a model decoded, and compare. A call that breaks its tool's
schema is answered like one about an unknown id: by `{"error": ...}`, never by an exception. Needs no torch.
"""

from __future__ import annotations

import datetime
import functools
import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tercet.randomness import canonical_json, digest
from tercet.recipe import Section

MAX_NAMES = 500  # an environment travels with each of its records
MAX_ID = 40  # characters
KINDS = ("terms", "names", "enum", "pattern", "integer", "date", "price")
ToolName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
FieldName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$", description="also its slot in a phrase: <name>")]
Text = Annotated[str, Field(min_length=1, max_length=120)]
Price = Annotated[float, Field(le=1e12)]  # its hundredths are exact up to 9e13


class Domain(Section):
    """The values of a parameter or result: a finite list, numbered and never written out."""

    description: str = Field("", max_length=200)
    terms: Literal[True] | None = Field(None, description="the recipe's terms")
    names: Annotated[tuple[Text, ...], Field(max_length=MAX_NAMES)] | None = Field(
        None, description="texts that the tool's schema doesn't list"
    )
    enum: Annotated[tuple[Text, ...], Field(max_length=50)] | None = Field(
        None, description="texts that the tool's schema lists"
    )
    pattern: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._/-]*#[A-Za-z0-9._/#-]*$", max_length=MAX_ID, description="an id; each # is a digit"
    )
    integer: tuple[int, int] | None = Field(None, description="[least, most]")
    date: tuple[datetime.date, datetime.date] | None = Field(None, description="[first, last]")
    price: tuple[Price, Price] | None = Field(None, description="[least, most]; a text with two decimals, as 4.50")

    @model_validator(mode="after")
    def _is_one_list(self) -> Domain:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'no values'}; give exactly one of {', '.join(KINDS)}")
        if self._first_and_last[0] > self._first_and_last[1]:
            raise ValueError(f"{given[0]}: the first is above the last; swap them")
        if self.price and self.price[0] < 0:
            raise ValueError(f"price: {self.price[0]} is below 0")
        listed = self.names or self.enum or ()
        if given[0] in ("names", "enum") and not listed:
            raise ValueError(f"{given[0]}: an empty list; give at least one entry")
        if len(set(listed)) < len(listed):
            twice = next(text for text in listed if listed.count(text) > 1)
            raise ValueError(f"{twice!r} stands twice; keep one")
        return self

    @property
    def is_open(self) -> bool:
        """Say whether the values are more than a schema lists: some of them can be held out of training."""
        return self.names is not None or self.pattern is not None

    @functools.cached_property
    def _listed(self) -> Mapping[str, int]:
        return {text: place for place, text in enumerate(self.names or self.enum or ())}

    @functools.cached_property
    def _first_and_last(self) -> tuple[int, int]:
        """Number a range: integers as they are, dates by day, prices by hundredths, ids by their digits."""
        if self.integer:
            return self.integer
        if self.date:
            return self.date[0].toordinal(), self.date[1].toordinal()
        if self.price:
            return round(self.price[0] * 100), round(self.price[1] * 100)
        return 0, 10 ** (self.pattern or "").count("#") - 1

    @property
    def size(self) -> int:
        """Count the values."""
        first, last = self._first_and_last
        return len(self._listed) or last - first + 1

    def at(self, place: int) -> str | int:
        """Give the value at `place`, from 0 to `size` - 1."""
        listed = self.names or self.enum
        if listed:
            return listed[place]
        number = self._first_and_last[0] + place
        if self.date:
            return datetime.date.fromordinal(number).isoformat()
        if self.price:
            return f"{number // 100}.{number % 100:02d}"
        if self.pattern:
            digits = iter(f"{number:0{self.pattern.count('#')}d}")
            return "".join(next(digits) if char == "#" else char for char in self.pattern)
        return number

    def place(self, value: Any) -> int | None:
        """Find a value's place; None for what is no value of this domain, whatever its type."""
        if self._listed:
            return self._listed.get(value) if isinstance(value, str) else None
        number = self._number(value)
        first, last = self._first_and_last
        if number is None or not first <= number <= last or self.at(number - first) != value:
            return None
        return number - first

    def _number(self, value: Any) -> int | None:
        """Read a value of a range as its number; `place` checks that it is spelt as `at` spells it."""
        if self.integer:
            return value if type(value) is int else None  # True is an int to isinstance
        if not isinstance(value, str) or len(value) > MAX_ID:
            return None
        if self.date:
            try:
                return datetime.date.fromisoformat(value).toordinal()
            except ValueError:
                return None
        marks = self.pattern or ""
        digits = (
            value.replace(".", "")
            if self.price
            else "".join(char for char, mark in zip(value, marks, strict=False) if mark == "#")
        )
        return int(digits) if digits.isascii() and digits.isdigit() else None

    def resolved(self, terms: Sequence[str]) -> Domain:
        """Put the recipe's terms in the place of `terms: true`."""
        return Domain(description=self.description, names=tuple(terms)) if self.terms else self

    def json_schema(self) -> dict[str, Any]:
        """Describe the values as JSON Schema does."""
        described = {"description": self.description} if self.description else {}
        if self.integer:
            return {"type": "integer", "minimum": self.integer[0], "maximum": self.integer[1], **described}
        if self.enum:
            return {"type": "string", "enum": list(self.enum), **described}
        if self.pattern:
            spelt = self.pattern.replace(".", r"\.").replace("#", "[0-9]")
            return {"type": "string", "pattern": f"^{spelt}$", **described}
        return {"type": "string", **({"format": "date"} if self.date else {}), **described}

    def hint(self) -> str:
        """Say the values in as few characters as a small model's context allows; empty for a plain text."""
        if self.integer:
            return f"{self.integer[0]}-{self.integer[1]}"
        return "|".join(self.enum) if self.enum else self.pattern or ("date" if self.date else "")


class Fails(Section):
    """A share of one parameter's values that the simulated tool doesn't know."""

    parameter: FieldName
    share: float = Field(0.2, gt=0, lt=1)
    error: Text = Field(description="what the result says then, as in 'no such order'")


class Tool(Section):
    """A function that the assistant can call, and what it returns."""

    name: ToolName
    description: Text
    parameters: dict[FieldName, Domain] = Field(default_factory=dict)
    returns: Annotated[dict[FieldName, Domain], Field(min_length=1)]
    fails: Fails | None = None

    def function_schema(self) -> dict[str, Any]:
        """Describe the tool as OpenAI's and Hugging Face's chat formats do."""
        properties = {name: domain.json_schema() for name, domain in self.parameters.items()}
        parameters = {"type": "object", "properties": properties, "required": list(self.parameters)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def signature(self) -> str:
        """Describe the tool in one line, for a model whose chat template knows no tools."""
        hints = {name: domain.hint() for name, domain in self.parameters.items()}
        said = ", ".join(f"{name}: {hint}" if hint else name for name, hint in hints.items())
        return f"{self.name}({said}): {self.description}"


class Environment:
    """The simulated tools of one tool file: executes calls, always with the same result.

    `terms` stand in the place of every `terms: true`.
    """

    def __init__(self, tools: Sequence[Tool], seed: int, terms: Sequence[str] = ()) -> None:
        self.tools = {tool.name: _resolved(tool, terms) for tool in tools}
        named = any(domain.terms for tool in tools for domain in tool.parameters.values())
        fields = set(Tool.model_fields)
        self.definition: dict[str, Any] = {  # JSON values, all that `of` needs
            "seed": seed,
            "terms": list(terms) if named else [],
            "tools": [tool.model_dump(mode="json", include=fields, exclude_defaults=True) for tool in tools],
        }
        self.seed = seed

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Environment:
        """Rebuild an environment from its `definition`: `record.lineage["parameters"]["environment"]`."""
        return _rebuilt(canonical_json(definition))

    def fault(self, name: Any, arguments: Any) -> str:
        """Say how a call breaks its tool's schema; empty when it doesn't."""
        if not isinstance(name, str) or name not in self.tools:
            return f"no tool {_shown(name)}; there are {', '.join(self.tools)}"
        parameters = self.tools[name].parameters
        if not isinstance(arguments, Mapping):
            return f"arguments {_shown(arguments)}; a mapping is needed"
        for key in (*parameters, *arguments):
            if key not in arguments:
                return f"{key}: missing"
            if key not in parameters:
                return f"{_shown(key)}: no parameter of {name}"
            if parameters[key].place(arguments[key]) is None:
                hint = parameters[key].hint()
                return f"{key}: {_shown(arguments[key])} is not {hint or 'known'}"
        return ""

    def knows(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Say whether the tool finds what it is asked about: every tool knows the same ids."""
        if tool.fails is None:
            return True
        asked = str(arguments[tool.fails.parameter])
        return int(digest(str(self.seed), "known", asked)[:15], 16) / 16**15 >= tool.fails.share

    def call(self, name: Any, arguments: Any) -> dict[str, Any]:
        """Execute a call; `{"error": ...}` when it breaks the schema or asks about something unknown."""
        if fault := self.fault(name, arguments):
            return {"error": fault}
        tool = self.tools[name]
        if tool.fails and not self.knows(tool, arguments):
            return {"error": tool.fails.error}
        asked = canonical_json(dict(arguments))
        return {
            field: domain.at(int(digest(str(self.seed), name, asked, field)[:15], 16) % domain.size)
            for field, domain in tool.returns.items()
        }


@functools.lru_cache(maxsize=16)
def _rebuilt(text: str) -> Environment:
    held = json.loads(text)
    return Environment([Tool.model_validate(tool) for tool in held["tools"]], held["seed"], held["terms"])


def _resolved(tool: Tool, terms: Sequence[str]) -> Tool:
    parameters = {name: domain.resolved(terms) for name, domain in tool.parameters.items()}
    return tool.model_copy(update={"parameters": parameters})


def _shown(value: Any) -> str:
    """Show a value that a model decoded, however long or deep."""
    text = reprlib.repr(value)
    return text if len(text) <= MAX_ID else text[: MAX_ID - 3] + "..."
