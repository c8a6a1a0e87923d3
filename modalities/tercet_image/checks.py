"""What doctor and validate can say about the image section without loading a model or asking a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import PIL

from tercet.modality import Check
from tercet.models import output_terms_of, parse_reference
from tercet.models.hub import cached_snapshot
from tercet.models.reference import Reference
from tercet.models.terms import licence_in
from tercet_image.recipe import Diffusion, ImageRecipe

NEEDED = ("torch", "transformers", "diffusers", "safetensors")


def checks(section: ImageRecipe | None) -> Iterator[Check]:
    """Check what an image section needs; without a section, what this machine could do."""
    yield Check(
        "image renderer", passed=True, detail=f"Pillow {PIL.__version__}", licence="Apache-2.0", output_terms="free"
    )
    settings = section.diffusion if section else None
    if section is None or settings:
        yield _check_packages(is_required=bool(settings and settings.pictures))
    if settings and settings.pictures:
        yield _check_model(settings)


def _check_packages(*, is_required: bool) -> Check:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    detail = "missing: " + ", ".join(missing) if missing else "installed"
    fix = "pip install 'tercet[image]'" if missing else ""
    return Check("image diffusion packages", not missing, detail, fix, required=is_required)


def _check_model(settings: Diffusion) -> Check:
    """Find the model where that needs no network; until it is seen, its licence and terms are unknown."""
    reference = parse_reference(settings.model)
    name = str(reference)
    if reference.scheme == "path":
        return _check_folder(reference)
    snapshot = cached_snapshot(reference)
    if snapshot is None:
        detail = "not cached: fetched on first use; its licence is read then"
        return Check(name, True, detail, licence="unknown", output_terms="unknown")
    return Check(name, True, "cached", licence=snapshot.licence, output_terms=snapshot.output_terms)


def _check_folder(reference: Reference) -> Check:
    folder = Path(reference.name).expanduser()
    if not folder.is_absolute():  # it starts at the recipe's folder, which only the run knows
        return Check(str(reference), True, "looked for when the run starts", licence="unknown", output_terms="unknown")
    if not (folder / "model_index.json").is_file():
        fix = "save a diffusers pipeline there: save_pretrained(folder)"
        return Check(str(reference), False, f"no model_index.json in {folder}", fix)
    licence = licence_in(folder)
    return Check(str(reference), True, "there", licence=licence, output_terms=output_terms_of(licence))
