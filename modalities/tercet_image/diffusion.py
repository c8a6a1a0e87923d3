"""Pictures of planned scenes by a diffusion model: the scene's caption is the prompt.

A diffusion model miscounts, swaps colours and can't spell, so nothing here claims that a picture shows its scene: it
comes without questions unless the recipe keeps them, and the lineage names the columns that nobody verified.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from PIL import Image

from tercet.errors import UsageError
from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json
from tercet.records import Failure, Item, Made
from tercet_image.caption import caption, questions
from tercet_image.pipelines import Painter, load_painter
from tercet_image.plan import Scenes
from tercet_image.recipe import ImageRecipe


class DiffusionPictures:
    """Loads a pipeline once and paints in passes of a fixed size; a black picture is left to the blank gate.

    Pixels may differ between machines, thread counts and versions of torch, whose sums run in another order.
    """

    needs: ClassVar[Needs] = Needs(memory_gib=6.0, gpus=1, model=True)
    batch_size: ClassVar[int] = 8  # a multiple of every pass that a recipe may ask for

    def __init__(self, section: ImageRecipe, resources: Resources, painter: Painter | None = None) -> None:
        if section.diffusion is None:
            raise UsageError("modalities.image.diffusion: missing; add pictures and model")
        self.section, self.settings, self.resources = section, section.diffusion, resources
        self.scenes = Scenes(section, (), resources.recipe_seed)
        self.painter = painter or load_painter(self.settings, resources.cores, resources.examples_root)

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Paint each item's caption."""
        for start in range(0, len(items), self.painter.batch):
            yield from self._pass(items[start : start + self.painter.batch])

    def _pass(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        seeds = [self.resources.seed_for(item, "generate") for item in items]
        told = [self._tell(item, random.Random(seed)) for item, seed in zip(items, seeds, strict=True)]
        whole = [at for at, payload in enumerate(told) if self.painter.takes_whole(payload["caption"])]
        pictures = (
            self.painter.paint([told[at]["caption"] for at in whole], [seeds[at] for at in whole]) if whole else []
        )
        painted = dict(zip(whole, pictures, strict=True))
        for at, payload in enumerate(told):
            if at in painted:
                yield self._made({**payload, "image": _png(painted[at])})
            else:
                yield Failure("generate", "PromptTooLong", _too_long(payload["caption"]), retryable=False)

    def _tell(self, item: Item, draw: random.Random) -> dict[str, Any]:
        """Give all of the payload but the picture."""
        scene, attributes = item.spec["scene"], self.section.scene
        count = self.section.questions_per_picture if self.settings.keep_questions else 0
        colours, shapes = list(attributes.colours), list(attributes.shapes)
        return {
            "caption": caption(scene, draw),
            "questions": questions(scene, count, colours, shapes, draw, self.scenes.unnamed(item.split)),
            "scene": canonical_json(scene),
        }

    def _made(self, payload: dict[str, Any]) -> Made:
        unverified = ["caption", "scene", *(["questions"] if payload["questions"] else [])]
        return Made(payload, self.painter.resolved.use, {**self.painter.parameters, "unverified": unverified})


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    return file.getvalue()


def _too_long(text: str) -> str:
    return (
        f"the caption has {len(text.split())} words, more than the model's tokenizer takes, and what is cut off can't "
        "be painted; ask for fewer objects, for captions: [short], or for a model with a longer prompt"
    )
