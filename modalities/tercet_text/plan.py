"""The plan: intents x personas x moods, edge cases and terms spread over them, each item computed from its index.

In every round of `intents x personas x moods` items each cell of the grid comes up exactly once, and any prefix is
balanced: two intents differ by at most one item, and so do two personas within an intent. Raising `dialogs` only adds
items. Terms go round in keyed permutations, so every term is used before one is used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tercet.modality import Planning
from tercet.permutation import mix, permute, spread
from tercet.randomness import canonical_json, digest
from tercet.records import Item
from tercet.sources import Document, Example, Term
from tercet_text.documents import DocumentIndex, Found
from tercet_text.intents import OBSCURE
from tercet_text.recipe import EdgeCase, Intent, TextRecipe
from tercet_text.tool_plan import ToolScenarios

# what there is to talk about when the user brings neither terms nor documents
TOPICS = ("paracetamol", "ibuprofen", "cough syrup", "vitamin D", "zinc ointment", "eye drops", "hand cream",
          "saline spray", "magnesium", "throat lozenges")  # fmt: skip
MAX_HEADING_CHARACTERS = 60
NEEDS_OTHER: frozenset[EdgeCase] = frozenset({"correction", "topic_switch", "ambiguous_term"})
MIN_TERM_TO_MISSPELL = 4  # letters; a shorter word has no recognisable misspelling


@dataclass(frozen=True)
class Cell:
    """A place in the grid, and the round in which it comes up."""

    intent: int
    persona: int
    mood: int
    round: int


class Dialogs:
    """The scenarios of one generator: an endless sequence, of which the recipe takes the first so many."""

    def __init__(self, section: TextRecipe, planning: Planning, generator: str, turns: tuple[int, int]) -> None:
        self.section, self.generator, self.turns = section, generator, turns
        self.language = planning.language
        self.terms = terms_of(planning.terms, planning.documents)
        self.seed = int(digest(str(planning.seed), "text plan", generator)[:15], 16)
        self.split_seed = int(digest(str(planning.seed), "text split")[:15], 16)  # one split for all generators
        self.sizes = (len(section.intents), len(section.personas), len(section.moods))
        self.num_cells = self.sizes[0] * self.sizes[1] * self.sizes[2]
        self.num_held_out = round(section.test * self.num_cells)

    def cell(self, index: int) -> Cell:
        """Place an index in the grid: a Latin-square walk that visits each cell once a round."""
        intents, personas, moods = self.sizes
        turn, place = divmod(index, self.num_cells)
        row, column = divmod(place, intents)
        seed = mix(self.seed + turn)
        intent = permute(column, intents, seed + row)
        late, early = divmod(row, personas)
        persona = permute((early + intent) % personas, personas, seed)
        mood = permute((late + early + intent // personas) % moods, moods, seed + 1)
        return Cell(intent, persona, mood, turn)

    def is_held_out(self, cell: Cell) -> bool:
        """Say whether a scenario belongs to the held-out share: the same cells in every round and generator."""
        _, personas, moods = self.sizes
        place = (cell.intent * personas + cell.persona) * moods + cell.mood
        return permute(place, self.num_cells, self.split_seed) < self.num_held_out

    def num_train(self, count: int) -> int:
        """Count the items of the train split among the first `count`."""
        rounds, rest = divmod(count, self.num_cells)
        first = rounds * self.num_cells
        held_out = sum(self.is_held_out(self.cell(first + index)) for index in range(rest))
        return count - rounds * self.num_held_out - held_out

    def item(self, index: int, position: int, documents: DocumentIndex) -> Item:
        """Plan the scenario at `index`; it stands at `position` of the whole plan."""
        cell = self.cell(index)
        intent = self.section.intents[cell.intent]
        persona, mood = self.section.personas[cell.persona].name, self.section.moods[cell.mood].name
        spec: dict[str, Any] = {
            "intent": intent.name,
            "persona": persona,
            "mood": mood,
            "language": self.language,
            "round": cell.round,
            **self._content(index, intent, documents),
        }
        split = "held_out" if self.is_held_out(cell) else "train"
        grid = {"intent": intent.name, "persona": persona, "mood": mood}
        return Item("text", self.generator, split, spec, position, grid)

    def _content(self, index: int, intent: Intent, documents: DocumentIndex) -> dict[str, Any]:
        """Choose terms, edge case and length, and look up what the documents say to each question."""
        least, most = self.turns
        draw = mix(self.seed ^ mix(index))
        term, other = self._term(index), self._other(index, draw)
        turns = least + draw % (most - least + 1)
        intents = [intent, *self._follow_ups(intent, draw, turns)]
        content: dict[str, Any] = {
            "turns": turns,
            "term": term.text,
            "other_term": other.text,
            "asks": [self._ask(one, term, documents) for one in intents],
            "detour": self._ask(intent, other, documents),
        }
        edge = self._edge_case(index, term)
        if edge == "no_answer":
            name = self._obscure(draw, term, documents)
            content["obscure"], edge = (name, edge) if name else ("", "")
        return {**content, "edge_case": edge}

    def _ask(self, intent: Intent, term: Term, documents: DocumentIndex) -> dict[str, Any]:
        found: Found = documents.find(term.text, intent.keywords, intent.general_rules)
        return {"intent": intent.name, "term": term.text, **found}

    def _follow_ups(self, intent: Intent, draw: int, turns: int) -> list[Intent]:
        able = [one for one in self.section.intents if one.follow and one.name != intent.name]
        wanted = min(len(able), turns - 1)
        return [able[permute(at, len(able), mix(draw + 1))] for at in range(wanted)]

    def _term(self, index: int) -> Term:
        turn, place = divmod(index, len(self.terms))
        return self.terms[permute(place, len(self.terms), mix(self.seed + 2 + turn))]

    def _other(self, index: int, draw: int) -> Term:
        """Choose a second term, another than the first wherever there are two."""
        turn, place = divmod(index, len(self.terms))
        size = len(self.terms)
        shift = 1 + mix(draw + 2) % (size - 1) if size > 1 else 0
        return self.terms[permute((place + shift) % size, size, mix(self.seed + 2 + turn))]

    def _edge_case(self, index: int, term: Term) -> EdgeCase | str:
        """Spread the edge cases evenly at the recipe's rate; one that this item can't play gives way to none."""
        rate, kinds = self.section.edge_cases.rate, self.section.edge_cases.kinds
        kinds = tuple(kind for kind in kinds if len(self.terms) > 1 or kind not in NEEDS_OTHER)
        place = spread(index, self.seed)
        if not kinds or place >= rate:
            return ""
        kind = kinds[int(place / rate * len(kinds))]
        if kind == "misspelt_term" and sum(letter.isalpha() for letter in term.text) < MIN_TERM_TO_MISSPELL:
            return ""
        return kind

    def _obscure(self, draw: int, term: Term, documents: DocumentIndex) -> str:
        """Name a question that the documents don't answer; empty when they answer them all."""
        names = list(OBSCURE)
        for at in range(len(names)):
            name = names[(draw + at) % len(names)]
            if documents.find(term.text, tuple(OBSCURE[name]["keywords"]), False)["kind"] != "answer":
                return name
        return ""


def terms_of(terms: Sequence[Term], documents: Sequence[Document]) -> Sequence[Term]:
    """Take the user's terms; without a list, the headings of the documents; without documents, everyday topics."""
    if terms:
        return terms
    lines = (line for document in documents for line in document.text.splitlines())
    headings = (line.lstrip("#").strip() for line in lines if line.startswith("##"))
    found = tuple(dict.fromkeys(text for text in headings if 0 < len(text) <= MAX_HEADING_CHARACTERS))
    return tuple(Term(text) for text in found or TOPICS)


class TextPlan:
    """The whole plan of a recipe's text section: grammar, language models, tools, then the user's own examples."""

    def __init__(self, section: TextRecipe, planning: Planning) -> None:
        self._documents_of = (planning.documents, planning.terms)
        self.parts: list[tuple[Dialogs | ToolScenarios, int]] = []
        wanted = {"grammar": section.dialogs}
        turns = {"grammar": section.turns}
        for name in ("llm", "endpoint"):
            if part := getattr(section, name):
                wanted[name], turns[name] = part.dialogs, part.turns or section.turns
        for name, count in wanted.items():
            self.parts.append((Dialogs(section, planning, name, turns[name]), count))
        if section.tools:
            scenarios = ToolScenarios(section, section.tools, planning, terms_of(planning.terms, planning.documents))
            self.parts.append((scenarios, section.tools.dialogs))
        self.num_synthetic = sum(count for _, count in self.parts)
        self.examples = _distinct(planning.examples)
        self._example_seed = int(digest(str(planning.seed), "text examples")[:15], 16)
        self.num_examples = self._count_examples(planning.real_fraction)

    @cached_property
    def documents(self) -> DocumentIndex:
        """The user's documents, indexed when the first item is planned."""
        return DocumentIndex(*self._documents_of)

    def _count_examples(self, fraction: float) -> int:
        """Take as many examples as the train split bears; without synthetic dialogs, all of them."""
        if not self.num_synthetic:
            return len(self.examples)
        num_train = sum(dialogs.num_train(count) for dialogs, count in self.parts)
        return min(len(self.examples), round(num_train * fraction / (1 - fraction)))

    def __len__(self) -> int:
        """Count the items."""
        return self.num_synthetic + self.num_examples

    def item(self, index: int) -> Item:
        """Give the item at `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a plan of {len(self)}")
        offset = index
        for dialogs, count in self.parts:
            if offset < count:
                return dialogs.item(offset, index, self.documents)
            offset -= count
        row = self.examples[permute(offset, len(self.examples), self._example_seed)]
        return Item("text", "examples", "train", {"example": row}, index, _example_cell(row))


def _distinct(examples: Sequence[Example]) -> list[Mapping[str, Any]]:
    """Keep each example once: two equal rows would be the same item."""
    return list({canonical_json(example.fields): example.fields for example in examples}.values())


def _example_cell(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row.get(name) or "real") for name in ("intent", "persona", "mood")}


def plan(section: TextRecipe, planning: Planning) -> TextPlan:
    """Plan the dialogs of one recipe."""
    return TextPlan(section, planning)
