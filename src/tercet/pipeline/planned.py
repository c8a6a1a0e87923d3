"""What a recipe asks for, ready to run: each modality's plan and its stages, cut into spans of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet import registry
from tercet.errors import RecipeError
from tercet.modality import Modality, PayloadType, Plan, Planning
from tercet.pipeline.stages import Stage
from tercet.recipe import Recipe
from tercet.records import Item
from tercet.sources import LoadedSources

SPAN = 4096  # items per span: what is planned, judged and committed together; one shard per split and span


@dataclass(frozen=True)
class PlannedModality:
    """One modality of a recipe: its plan, its payload and its stages in order."""

    modality: Modality
    section: Any
    plan: Plan
    payload: PayloadType
    generators: dict[str, Stage]
    gates: list[Stage]
    corpus_gates: list[Stage]

    @property
    def name(self) -> str:
        """The modality's name."""
        return self.modality.name

    def spans(self) -> Iterator[range]:
        """Cut the plan into spans of item indexes."""
        for first in range(0, len(self.plan), SPAN):
            yield range(first, min(first + SPAN, len(self.plan)))

    def items(self, span: range) -> list[Item]:
        """Plan the items of one span."""
        return [self.plan.item(index) for index in span]


def plan_recipe(recipe: Recipe, sources: LoadedSources, run_dir: Path) -> list[PlannedModality]:
    """Plan every modality that the recipe fills, in alphabetical order.

    Raises:
        RecipeError: the recipe fills no modality, or one plans no item.
    """
    planned = [
        _plan_one(recipe, sources, run_dir, registry.modality(name), section)
        for name, section in recipe.modality_sections()
        if section is not None
    ]
    if not planned:
        raise RecipeError(f"{recipe.path}: no modality filled; add one below `modalities:` (tercet init shows how)")
    for one in planned:
        if not len(one.plan):
            raise RecipeError(f"{recipe.path}: modalities.{one.name} plans no item; ask for at least one record")
    return planned


def _plan_one(
    recipe: Recipe, sources: LoadedSources, run_dir: Path, modality: Modality, section: Any
) -> PlannedModality:
    extra = modality.extra
    examples, source = sources.examples.get(modality.name, ((), None))
    planning = Planning(
        seed=recipe.sections.seed,
        language=recipe.sections.language,
        terms=sources.terms,
        phrases=sources.phrases,
        documents=sources.documents,
        examples=examples,
        real_fraction=source.real_fraction if source else 0.0,
        root=str(recipe.root.resolve()),
    )

    def stage(kind: Any, name: str, code: str, stage_section: Any) -> Stage:
        return Stage(
            kind, modality.name, name, code, extra, modality.payload, stage_section,
            recipe.sections.seed, recipe.sections.language, str(recipe.root.resolve()), run_dir / "blobs",
        )  # fmt: skip

    gate_sections = getattr(section, "gates", None)

    def wanted(gates: Any) -> list[Stage]:
        found = [(name, code, getattr(gate_sections, name, None)) for name, code in gates.items()]
        return [stage("gate", name, code, config) for name, code, config in found if config is not None]

    return PlannedModality(
        modality=modality,
        section=section,
        plan=registry.load(modality.plan, extra)(section, planning),
        payload=registry.load(modality.payload, extra),
        generators={name: stage("generate", name, code, section) for name, code in modality.generators.items()},
        gates=wanted(modality.gates),
        corpus_gates=wanted(modality.corpus_gates),
    )
