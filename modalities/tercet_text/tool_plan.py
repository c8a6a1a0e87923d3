"""The plan of dialogs with tools: (tool, kind) cells in rounds, arguments drawn and executed, a share held out.

A round visits each cell once, and as many chats that need no tool as the recipe's share of them asks for. Held-out
dialogs ask in phrases and about open values (names, ids) that no training dialog holds: both are divided by keyed
permutations, so raising `dialogs` only adds items. An item's spec holds all its dialog is made of.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tercet.errors import UsageError
from tercet.modality import Planning
from tercet.permutation import mix, permute
from tercet.randomness import digest
from tercet.records import Item
from tercet.sources import Term
from tercet_text.documents import DocumentIndex
from tercet_text.environment import MAX_NAMES, Domain, Environment
from tercet_text.phrases import pick
from tercet_text.recipe import TextRecipe, Tools
from tercet_text.tool_file import Chat, DeclaredTool, read_tools

MAX_TRIED = 64  # values drawn to find one that the tool knows, or doesn't
Kind = Literal["straight", "missing", "two_calls", "error", "no_tool"]


@dataclass(frozen=True)
class Cell:
    """What a dialog is about: a tool (or no tool) and what happens."""

    tool: DeclaredTool | None
    kind: Kind


class ToolScenarios:
    """The scenarios with tools: an endless sequence, of which the recipe takes the first so many."""

    def __init__(self, section: TextRecipe, settings: Tools, planning: Planning, terms: Sequence[Term]) -> None:
        self.section, self.language = section, planning.language
        self.file = read_tools(Path(planning.root) / settings.file)
        names = [term.text for term in terms]
        self._check_terms(len(names))
        self.environment = Environment(self.file.tools, self.file.seed, names)
        self.terms = Domain(names=tuple(names[:MAX_NAMES]))
        self.seed = int(digest(str(planning.seed), "text plan", "tools")[:15], 16)
        self.split_seed = int(digest(str(planning.seed), "text split", "tools")[:15], 16)
        self.cells = self._cells(settings.no_tool)

    def _check_terms(self, count: int) -> None:
        for tool in self.file.tools:
            if count > MAX_NAMES and any(domain.terms for domain in tool.parameters.values()):
                raise UsageError(
                    f"sources.terms: {count} terms; the tool {tool.name} takes at most {MAX_NAMES}: "
                    "shorten the list, or give the tool `names` of its own"
                )

    def _cells(self, no_tool: float) -> list[Cell]:
        cells: list[Cell] = []
        for tool in self.file.tools:
            kinds: list[Kind] = ["straight", "two_calls"]
            kinds += ["missing"] * bool(tool.phrases.missing)
            kinds += ["error"] * (tool.fails is not None)
            cells += [Cell(tool, kind) for kind in kinds]
        num_chats = round(len(cells) * no_tool / (1 - no_tool)) if self.file.chats else 0
        return cells + [Cell(None, "no_tool")] * num_chats

    def is_held_out(self, place: int, turn: int) -> bool:
        """Say whether the cell at `place` is held out in a round: the share's rounds, evenly spaced, keyed by cell."""
        return self._num_held_out(place, turn + 1) > self._num_held_out(place, turn)

    def _num_held_out(self, place: int, rounds: int) -> int:
        """Count the held-out rounds of a cell among the first `rounds`."""
        phase = (mix(self.split_seed + place) % 1000) / 1000
        return math.floor(rounds * self.section.test + phase)

    def _place(self, index: int) -> tuple[int, int]:
        """Place an index: the cell, and the round in which it comes up."""
        turn, column = divmod(index, len(self.cells))
        return permute(column, len(self.cells), mix(self.seed + turn)), turn

    def num_train(self, count: int) -> int:
        """Count the items of the train split among the first `count`."""
        rounds, rest = divmod(count, len(self.cells))
        first = rounds * len(self.cells)
        held_out = sum(self._num_held_out(place, rounds) for place in range(len(self.cells)))
        return count - held_out - sum(self.is_held_out(*self._place(first + at)) for at in range(rest))

    def item(self, index: int, position: int, documents: DocumentIndex) -> Item:  # noqa: ARG002
        """Plan the scenario at `index`; it stands at `position` of the whole plan."""
        place, turn = self._place(index)
        cell, held_out = self.cells[place], self.is_held_out(place, turn)
        scenario = Scenario(self, index, held_out=held_out)
        exchanges = scenario.chat() if cell.tool is None else scenario.calls(cell.tool, cell.kind)
        kind = _played(cell.kind, exchanges)
        about = exchanges[0].get("tool") or exchanges[0]["chat"]
        spec = {
            "kind": kind,
            "about": about,
            "persona": scenario.pick(self.section.personas).name,
            "mood": scenario.pick(self.section.moods).name,
            "language": self.language,
            "number": index,
            "exchanges": exchanges,
            "environment": self.environment.definition,
        }
        split = "held_out" if held_out else "train"
        grid = {"tool": cell.tool.name if cell.tool else "none", "kind": kind}
        return Item("text", "tools", split, spec, position, grid)

    def divide(self, size: int, what: str, *, held_out: bool) -> tuple[range, int]:
        """Divide `size` places between training and the held-out share: the range of one, and the key to permute it.

        Of two places or more each gets one, so that no held-out dialog is asked in a trained phrase.
        """
        share = self.section.test
        num_held_out = min(size - 1, max(1, round(share * size))) if share else 0
        taken = range(num_held_out) if held_out and num_held_out else range(num_held_out, size)
        return taken, self.split_seed ^ int(digest(what)[:15], 16)


def _played(kind: Kind, exchanges: Sequence[dict[str, Any]]) -> Kind:
    """Name a single call by what came of it: few names may leave a split without one that the tool doesn't know."""
    if kind in ("straight", "error"):
        return "error" if exchanges[0]["fails"] else "straight"
    return kind


class Scenario:
    """One dialog's draws; each follows from the plan's seed and the index."""

    def __init__(self, scenarios: ToolScenarios, index: int, *, held_out: bool) -> None:
        self.scenarios, self.index, self.held_out = scenarios, index, held_out
        self.rng = random.Random(mix(scenarios.seed ^ mix(index)))

    def pick(self, options: Sequence[Any]) -> Any:
        """Choose one option."""
        return pick(self.rng, options)

    def calls(self, tool: DeclaredTool, kind: Kind) -> list[dict[str, Any]]:
        """Plan one call, or one and then another tool's."""
        if kind != "two_calls":
            return [self._call(tool, 0, fails=kind == "error", lacks=kind == "missing")]
        others = [other for other in self.scenarios.file.tools if other.name != tool.name]
        second = self.pick(others) if others else tool
        shift = self.rng.randrange(2) if others else 1  # the second question is often about the same thing
        return [self._call(tool, 0), self._call(second, shift)]

    def chat(self) -> list[dict[str, Any]]:
        """Plan a question that needs no tool."""
        chat: Chat = self.pick(self.scenarios.file.chats)
        values = {"term": self._value(self.scenarios.terms, 0)}
        return [
            {"chat": chat.name, "ask": self._phrase(chat.ask), "report": self.pick(chat.reply), "values": values},
        ]

    def _call(self, tool: DeclaredTool, shift: int, *, fails: bool = False, lacks: bool = False) -> dict[str, Any]:
        environment = self.scenarios.environment
        arguments: dict[str, Any] = {}
        for name, domain in environment.tools[tool.name].parameters.items():  # with the terms in them
            tried = MAX_TRIED if tool.fails and name == tool.fails.parameter else 1
            for step in range(tried):
                arguments[name] = self._value(domain, shift + step)
                if tried == 1 or environment.knows(tool, arguments) is not fails:
                    break
        is_known = environment.knows(tool, arguments)
        missing = self.pick(sorted(tool.phrases.missing)) if lacks else ""
        asked = tool.phrases.missing[missing] if missing else None
        return {
            "tool": tool.name,
            "arguments": arguments,
            "fails": not is_known,
            "missing": missing,
            "ask": self._phrase(asked.ask if asked else tool.phrases.ask),
            "question": self.pick(asked.question) if asked else "",
            "answer": self.pick(asked.answer) if asked else "",
            "report": self.pick(tool.phrases.report if is_known else tool.phrases.failed),
        }

    def _phrase(self, phrases: Sequence[str]) -> str:
        """Choose a user's phrase of this item's split."""
        taken, key = self.scenarios.divide(len(phrases), "\n".join(phrases), held_out=self.held_out)
        return phrases[permute(self.pick(taken), len(phrases), key)]

    def _value(self, domain: Domain, shift: int) -> str | int:
        """Draw a value: of an open domain one of this item's split, each once before one comes again."""
        if not domain.is_open:
            return domain.at(self.rng.randrange(domain.size))
        # by its values, not by its tool: an id that one tool never trains on is no other tool's, either
        taken, key = self.scenarios.divide(domain.size, domain.pattern or "names", held_out=self.held_out)
        turn, place = divmod(self.index, len(taken))
        at = permute((place + shift) % len(taken), len(taken), mix(self.scenarios.seed + turn))
        return domain.at(permute(taken[at], domain.size, key))
