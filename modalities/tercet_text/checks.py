"""What doctor and validate can say about the text section without asking anybody: models, keys, terms, language."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from tercet.modality import Check
from tercet.models import AUTO, parse_reference
from tercet.models.carried import is_cached
from tercet.models.packages import PACKAGES
from tercet_text.recipe import Endpoint, Llm, TextRecipe

NEEDED = ("torch", "transformers", "safetensors")


def checks(section: TextRecipe | None) -> Iterator[Check]:
    """Check what a text section needs; without a section, what this machine could do."""
    yield Check("scenario grammar", True, "needs nothing; English is tested, other languages are not")
    settings = section.llm if section else Llm(dialogs=0)
    if settings:
        yield from _check_llm(settings, is_required=section is not None and settings.dialogs > 0)
    if section and section.endpoint:
        yield from _check_endpoint(section.endpoint)
    if section and section.test > 0 and round(section.test * _num_cells(section)) == 0:
        yield Check(
            "text held-out split", False, f"{section.test:g} of {_num_cells(section)} scenarios is none",
            "raise modalities.text.test, or add intents, personas or moods", required=False,
        )  # fmt: skip


def _num_cells(section: TextRecipe) -> int:
    return len(section.intents) * len(section.personas) * len(section.moods)


def _check_llm(settings: Llm, *, is_required: bool) -> Iterator[Check]:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    yield Check(
        "text language model packages", not missing, "missing: " + ", ".join(missing) if missing else "installed",
        "pip install 'tercet[text]'" if missing else "", required=is_required,
    )  # fmt: skip
    reference = parse_reference(settings.model)
    name = AUTO["chat"][1] if reference.scheme == "auto" else reference.name
    if reference.scheme in ("auto", "pkg") and name in PACKAGES:
        package, cached = PACKAGES[name], is_cached(name)
        size = f"{package.size / 1e6:.0f} MB"
        yield Check(
            f"pkg:{name}", True, "cached" if cached else f"will be fetched on first use ({size})",
            licence=package.licence, output_terms=package.output_terms, required=is_required,
        )  # fmt: skip
    elif reference.scheme == "pkg":
        yield Check(
            f"pkg:{name}", False, "no such carried model", f"known: {', '.join(PACKAGES)}", required=is_required
        )
    else:
        yield Check(
            str(reference), True, "not looked at before the run", licence="unknown", output_terms="unknown",
            required=is_required,
        )  # fmt: skip


def _check_endpoint(settings: Endpoint) -> Iterator[Check]:
    has_key = not settings.key_env or bool(os.environ.get(settings.key_env))
    yield Check(
        settings.model, has_key, f"at {settings.url}" if has_key else f"{settings.key_env} isn't set",
        "" if has_key else f"export {settings.key_env}=...", settings.licence, settings.output_terms,
    )  # fmt: skip
