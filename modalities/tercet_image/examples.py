"""The user's own pictures: each manifest row with a file and a caption becomes a record beside the synthetic ones.

A line of `manifest.jsonl`: `{"file": "shelf.jpg", "caption": "Two boxes on a shelf", "licence": "CC0-1.0",
"questions": [{"question": "How many boxes?", "answer": "two"}]}`; questions and any further field may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json, digest
from tercet.records import Failure, Item, Made, ModelUse
from tercet_image.payload import UNKNOWN_SCENE
from tercet_image.photo import BadPicture, read_picture
from tercet_image.recipe import ImageRecipe

OWN_DATA = ModelUse("user:examples", "", "user", "free")  # the user's own data, used on the user's own terms
COLUMNS = ("caption", "questions")


class BadRow(Exception):
    """A manifest row can't become a record; the text names the field and the fix."""


class Examples:
    """Takes pictures with the captions they came with; a bad one is that item's failure and says what to mend."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.5)
    batch_size: ClassVar[int] = 32

    def __init__(self, section: ImageRecipe, resources: Resources) -> None:
        self.section, self.resources = section, resources

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Give one payload per row; the row's other fields (its licence, say) go into the lineage untouched."""
        for item in items:
            try:
                yield self._make(item)
            except (BadRow, BadPicture) as error:
                where = item.spec["file"] or canonical_json(dict(item.spec["row"]))[:60]
                yield Failure("generate", "BadExample", f"{where}: {error}", retryable=False)

    def _make(self, item: Item) -> Made:
        row: Mapping[str, Any] = item.spec["row"]
        payload = {
            "caption": _caption(row),
            "questions": read_questions(row.get("questions")),
            "image": read_picture(self._read(item.spec["file"], item.spec["digest"]), self.section.max_example_side),
            "scene": UNKNOWN_SCENE,
        }
        own = {name: value for name, value in row.items() if name not in COLUMNS}
        parents = [f"example:{digest(item.spec['digest'], dict(row))}"]
        parameters = {"parents": parents, "file": item.spec["file"], **({"fields": own} if own else {})}
        return Made(payload, OWN_DATA, parameters)

    def _read(self, name: str, planned: str) -> bytes:
        if not name:
            raise BadRow("the row names no file; give a folder with a manifest (file, caption), not a .jsonl file")
        data = (Path(self.resources.examples_root) / name).read_bytes()
        if not hashlib.sha256(data).hexdigest().startswith(planned):
            raise BadRow("the file changed after the run was planned; run with --fresh")
        return data


def _caption(row: Mapping[str, Any]) -> str:
    caption = row.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise BadRow(f"caption: {_shorten(caption)}; write what the picture shows into the manifest")
    return " ".join(caption.split())


def read_questions(value: Any) -> list[dict[str, str]]:
    """Read questions: a list of {question, answer[, attribute]}, or in a table's cell the same as JSON."""
    if value in (None, ""):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRow(f"questions: {_shorten(value)}; write a JSON list of {{question, answer}}") from error
    if not isinstance(value, list):
        raise BadRow(f"questions: {_shorten(value)}; a list of {{question, answer}} is needed")
    return [_question(at, one) for at, one in enumerate(value)]


def _question(at: int, one: Any) -> dict[str, str]:
    if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("question", "answer")):
        raise BadRow(f"questions[{at}]: {_shorten(one)}; question and answer must be text")
    return {"question": one["question"], "answer": one["answer"], "attribute": str(one.get("attribute") or "")}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
