"""The frozen sets of questions about pictures: held-out combinations, the same without sight, and general scenes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tercet.errors import SourceError, UsageError
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.sources import read_examples
from tercet.train.task import Example, Suite, own_general
from tercet_image.examples import BadRow, read_questions
from tercet_image.general_scenes import MEASURED, general_payloads
from tercet_image.held_out import held_out_records, pair_of
from tercet_image.photo import BadPicture, read_picture
from tercet_image.plan import HELD_OUT
from tercet_image.recipe import ImageRecipe
from tercet_image.vl_reader import open_picture

BLIND = "blind"
GENERAL = "general"
NUM_GENERAL = 500  # pictures
ATTRIBUTE = "question"


def read_suites(recipe: Recipe, section: ImageRecipe, run_dir: Path) -> list[Suite]:
    """Read the run's held-out pictures, draw the general ones, and read those that `evaluate.general` names."""
    held_out = held_out_examples(section, run_dir)
    general = (payload_examples(key, payload) for key, payload in general_payloads(section, MEASURED, NUM_GENERAL))
    suites = [
        Suite(HELD_OUT, "primary", "questions about pictures of pairs never trained on", held_out),
        Suite(BLIND, "other", "the same questions about a black picture", [blinded(one) for one in held_out]),
        Suite(
            GENERAL, "general", "questions about scenes in the default palette", [x for some in general for x in some]
        ),
    ]
    if folder := own_general(recipe, "image"):
        own = list(folder_examples(folder, section.max_example_side))
        suites.append(Suite(f"your {folder.resolve().name}", "general", "your general questions", own))
    return suites


def held_out_examples(section: ImageRecipe, run_dir: Path) -> list[Example]:
    """Read the questions about held-out pictures; their source is the pair.

    Raises:
        UsageError: there is no held-out picture, or no question about one.
    """
    found = [
        example
        for record in held_out_records(section, run_dir)
        for example in payload_examples(record.id, record.payload, pair_of(record.payload))
    ]
    if not found:
        key, value, fix = "questions_per_picture", str(section.questions_per_picture), "raise it"
        if section.questions_per_picture:
            key, value, fix = "diffusion.keep_questions", "false", "set it, or add pictures of the renderer"
        raise UsageError(
            f"modalities.image.{key}: {value} leaves no question about a held-out picture, so nothing could be judged; "
            f"{fix}"
        )
    return found


def record_examples(records: Iterable[Record]) -> Iterator[Example]:
    """Turn records into examples, one per question, whose source is the picture."""
    for record in records:
        yield from payload_examples(record.id, record.payload)


def payload_examples(name: str, payload: Mapping[str, Any], source: str = "") -> Iterator[Example]:
    """Turn one picture's questions into examples; their source is the picture where no other is given."""
    for number, one in enumerate(payload["questions"] or ()):
        content = {"picture": payload["image"], "question": one["question"]}
        slices = {ATTRIBUTE: one["attribute"] or "other"}
        yield Example(f"{name}/{number}", source or name, one["answer"], content, slices)


def folder_examples(folder: Path, max_side: int) -> Iterator[Example]:
    """Read the user's own pictures with their questions: a folder with a manifest of `file` and `questions`.

    Raises:
        SourceError: names the row that can't be asked.
    """
    for row in read_examples(folder):
        if not row.file:
            raise SourceError(f"evaluate.general: {folder}: rows name no file; give a folder with a manifest")
        try:
            questions = read_questions(row.fields.get("questions"))
            picture = read_picture(Path(row.file).read_bytes(), max_side)
        except (BadRow, BadPicture, OSError) as error:
            raise SourceError(f"evaluate.general: {row.file}: {error}") from error
        if not questions:
            raise SourceError(
                f"evaluate.general: {row.file}: has no questions; write a JSON list of {{question, answer}}"
            )
        yield from payload_examples(row.file_digest, {"image": picture, "questions": questions})


def blinded(example: Example) -> Example:
    """Ask the same about a black picture of the same size."""
    size = open_picture(example.content["picture"], example.id).size
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    content = {**example.content, "picture": file.getvalue()}
    return Example(f"{example.id}/{BLIND}", example.source, example.reference, content, example.slices)
