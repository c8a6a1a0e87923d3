"""The user's tool file: tools, what they return in the simulated environment, and how people talk about them.

It is read when the plan is made, and only then: an item carries the phrases and the environment it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from tercet.errors import RecipeError, SourceError
from tercet.recipe import Name, Section
from tercet.yaml_lines import Keys, Located, read_yaml
from tercet_text.environment import FieldName, Tool
from tercet_text.phrases import PhraseError, certain_slots, parse, slots

CHAT_SLOTS = ("term",)
MAX_TOOLS = 20


def _check_phrase(phrase: str) -> str:
    try:
        parse(phrase)
    except PhraseError as error:
        raise ValueError(str(error)) from error
    return phrase


def _check_filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # not min_length: pydantic would count the entries without a fault
    if not values:
        raise ValueError("an empty list; give at least one entry")
    return values


def _check_two(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(values) < 2:
        raise ValueError("give at least two phrases: some are never trained on")
    return values


Said = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(_check_phrase)]
Phrases = Annotated[tuple[Said, ...], AfterValidator(_check_filled)]
Asks = Annotated[tuple[Said, ...], AfterValidator(_check_two)]


class Missing(Section):
    """How a call begins without one of its parameters."""

    ask: Asks = Field(description="the user's question, without the parameter")
    question: Phrases = Field(description="by which the assistant asks for it")
    answer: Phrases = Field(description="by which the user gives it")


class ToolPhrases(Section):
    """How people talk about a tool; a slot is the name of a parameter or, in a report, of a returned field."""

    ask: Asks
    report: Phrases
    failed: tuple[Said, ...] = Field((), description="the report where the tool knows nothing; <error> is what it said")
    missing: dict[FieldName, Missing] = Field(default_factory=dict)


class DeclaredTool(Tool):
    """A tool with its phrases."""

    phrases: ToolPhrases


class Chat(Section):
    """What users ask that needs no tool, and how the assistant answers; <term> is one of the recipe's terms."""

    name: Name
    ask: Asks
    reply: Phrases


class ToolFile(Section):
    """The whole file."""

    version: Literal[1]
    seed: int = Field(0, ge=0, lt=2**63, description="of the simulated environment: another one, other results")
    tools: Annotated[tuple[DeclaredTool, ...], Field(max_length=MAX_TOOLS), AfterValidator(_check_filled)]
    chats: tuple[Chat, ...] = ()


Fault = tuple[Keys, str]


def read_tools(path: Path) -> ToolFile:
    """Read and check a tool file.

    Raises:
        SourceError: there is no such file.
        RecipeError: with one line per fault: `file:line: key: what is wrong; what to do`.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; paths in a recipe start at the recipe's folder")
    located = read_yaml(path)
    if not isinstance(located.data, dict):
        raise RecipeError(f"{path.name}:1: a tool file is a mapping with version, tools and chats")
    try:
        file = ToolFile.model_validate(located.data)
    except ValidationError as error:
        faults = [(tuple(fault["loc"]), _say(fault["type"], fault["msg"])) for fault in error.errors(include_url=False)]
        raise RecipeError(_lines(located, faults)) from error
    if found := list(_faults(file)):
        raise RecipeError(_lines(located, found))
    return file


def _lines(located: Located, faults: Iterable[Fault]) -> str:
    return "\n".join(f"{located.place(keys)}: {'.'.join(map(str, keys))}: {said}" for keys, said in faults)


def _say(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key; mend its spelling or remove it"
    return "missing; add this key" if kind == "missing" else message.removeprefix("Value error, ")


def _faults(file: ToolFile) -> Iterator[Fault]:
    """Find what no single value shows: names that clash, slots that nothing fills, questions that can't be answered."""
    for kind, entries in (("tools", file.tools), ("chats", file.chats)):
        names = [entry.name for entry in entries]
        for at, name in enumerate(names):
            if name in names[:at]:
                yield (kind, at, "name"), f"{name!r} stands twice; names must differ"
    for at, tool in enumerate(file.tools):
        yield from _tool_faults(("tools", at), tool)
    for at, chat in enumerate(file.chats):
        for key in ("ask", "reply"):
            yield from _slot_faults(("chats", at, key), getattr(chat, key), may=CHAT_SLOTS)


def _tool_faults(keys: Keys, tool: DeclaredTool) -> Iterator[Fault]:
    yield from _field_faults(keys, tool)
    parameters, phrases = tuple(tool.parameters), tool.phrases
    place = (*keys, "phrases")
    yield from _slot_faults((*place, "ask"), phrases.ask, may=parameters, must=parameters)
    yield from _slot_faults((*place, "report"), phrases.report, may=(*parameters, *tool.returns))
    yield from _slot_faults((*place, "failed"), phrases.failed, may=(*parameters, "error"))
    for name, missing in phrases.missing.items():
        place = (*keys, "phrases", "missing", name)
        if name not in parameters:
            yield place, f"{name!r} is no parameter; {_choice(parameters)}"
            continue
        others = tuple(other for other in parameters if other != name)
        yield from _slot_faults((*place, "ask"), missing.ask, may=others, must=others)
        yield from _slot_faults((*place, "question"), missing.question, may=others)
        yield from _slot_faults((*place, "answer"), missing.answer, may=(name,), must=(name,))


def _field_faults(keys: Keys, tool: DeclaredTool) -> Iterator[Fault]:
    for name, domain in tool.parameters.items():
        if domain.price:
            yield (*keys, "parameters", name), "price is no kind of parameter; use integer or enum"
    for name, domain in tool.returns.items():
        if name in tool.parameters or name == "error":
            yield (*keys, "returns", name), f"{name!r} is taken; name it differently"
        if domain.terms:  # a result would say terms that are held out of training
            yield (*keys, "returns", name), "terms is no kind of result; use enum or names"
    if tool.fails and tool.fails.parameter not in tool.parameters:
        yield (
            (*keys, "fails", "parameter"),
            f"{tool.fails.parameter!r} is no parameter; {_choice(tuple(tool.parameters))}",
        )
    if tool.fails and not tool.phrases.failed:
        yield (*keys, "phrases"), "failed: missing; add what the assistant says when the tool fails"


def _slot_faults(
    keys: Keys, phrases: tuple[str, ...], *, may: tuple[str, ...], must: tuple[str, ...] = ()
) -> Iterator[Fault]:
    """Hold each phrase to the slots it may hold, and to those that must stand in it whatever is chosen."""
    for at, phrase in enumerate(phrases):
        parsed = parse(phrase)
        unknown = sorted(set(slots(parsed)) - set(may))
        if unknown:
            yield (*keys, at), f"phrase {phrase!r}: <{unknown[0]}> is no slot here; {_choice(may)}"
        for name in must:
            if name not in certain_slots(parsed):
                yield (*keys, at), f"phrase {phrase!r}: put <{name}> into every choice; the call couldn't be made else"


def _choice(names: tuple[str, ...]) -> str:
    return f"choose from {', '.join(names)}" if names else "there is none"
