"""The base model that an adapter is trained on: found, allowed, and the same one every time."""

from __future__ import annotations

from collections.abc import Callable

from tercet.modality import Check
from tercet.models import ResolvedModel, check_terms, resolve
from tercet.recipe import Recipe
from tercet.train.task import Task


def resolve_base(recipe: Recipe, task: Task, pinned: str, announce: Callable[[str], None]) -> ResolvedModel:
    """Find the recipe's base model; `auto` stays with the `pinned` reference that was chosen before, if any.

    Raises:
        ModelError: it can't be found.
        TermsError: the recipe's `use` doesn't allow it.
    """
    asked = recipe.sections.train.base
    base = resolve(pinned if asked == "auto" and pinned else asked, task.defaults.base, recipe.root)
    if base.chosen_because:
        announce(f"base: {base.reference} ({base.chosen_because})")
    terms = Check(base.reference, True, base.origin, licence=base.licence, output_terms=base.output_terms)
    for said in check_terms(recipe.sections.use, recipe.sections.accept_terms, [terms]):
        announce(said)
    return base
