"""The plan: scenes drawn index by index from the recipe's attributes; some colour-shape pairs are never trained on.

A scene is JSON: `{"background", "relation", "objects": [{"shape", "colour", "size", "label"}], "style"}`. Objects stand
side by side or one above the other; `relation` is where the first stands to the second. Rendered pictures come first,
then those of a diffusion model, then the user's own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tercet.modality import Planning
from tercet.permutation import permute
from tercet.randomness import canonical_json, digest
from tercet.records import Item
from tercet.sources import Example, Term
from tercet_image.recipe import ImageRecipe

HELD_OUT = "held_out_combinations"
MAX_LABEL = 24  # characters that fit on a box or bottle
Pair = tuple[str, str]  # (colour, shape)


@dataclass(frozen=True)
class Scenes:
    """The scenes of one generator: an endless sequence, of which the recipe takes the first so many."""

    section: ImageRecipe
    terms: Sequence[Term]
    seed: int
    generator: str = "renderer"

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every colour-shape pair."""
        attributes = self.section.scene
        return [(colour, shape) for colour in attributes.colours for shape in attributes.shapes]

    @cached_property
    def held_out(self) -> frozenset[Pair]:
        """The pairs that appear in no training picture, whichever generator makes it."""
        count = round(self.section.test_fraction * len(self.pairs))
        return frozenset(sorted(self.pairs, key=lambda pair: digest(str(self.seed), "held out", *pair))[:count])

    def unnamed(self, split: str) -> frozenset[Pair]:
        """Give the pairs that no question about a picture of this split may name."""
        return frozenset() if split == HELD_OUT else self.held_out

    def pair(self, index: int) -> Pair:
        """Give the first object's pair at `index`: every pair comes up once before one comes up again."""
        turn, place = divmod(index, len(self.pairs))
        key = digest(str(self.seed), "pairs", str(turn))
        return self.pairs[permute(place, len(self.pairs), int(key[:15], 16))]

    def num_train(self, count: int) -> int:
        """Count the items of the train split among the first `count`."""
        turns, rest = divmod(count, len(self.pairs))
        first = turns * len(self.pairs)
        held_out = sum(self.pair(first + place) in self.held_out for place in range(rest))
        return count - turns * len(self.held_out) - held_out

    def item(self, index: int, position: int) -> Item:
        """Plan the scene at `index`, which stands at `position` of the whole plan; the first pair decides the split."""
        pair = self.pair(index)
        split = HELD_OUT if pair in self.held_out else "train"
        draw = random.Random(f"{self.seed}/scene/{index}")
        scene = self._scene(pair, split, draw)
        cell = {"generator": self.generator, "objects": str(len(scene["objects"]))}
        return Item("image", self.generator, split, {"number": index, "scene": scene}, position, cell)

    def _scene(self, pair: Pair, split: str, draw: random.Random) -> dict[str, Any]:
        """Fill a scene around its first object."""
        attributes = self.section.scene
        free = [one for one in self.pairs if split == HELD_OUT or one not in self.held_out]
        count = draw.randint(*attributes.objects)
        chosen = [pair]
        while len(chosen) < count:
            chosen.append(draw.choice(free))
        colours = tuple(colour for colour, _ in chosen)
        while not attributes.backgrounds_for(colours):  # two colours that no background suits: take one of them twice
            chosen = [(chosen[0][0], shape) for _, shape in chosen]
            chosen = [one if one in free or at == 0 else pair for at, one in enumerate(chosen)]
            colours = (chosen[0][0],)
        objects: list[dict[str, str]] = [
            {"shape": shape, "colour": colour, "size": draw.choice(attributes.sizes), "label": ""}
            for colour, shape in chosen
        ]
        labels = [term.text for term in self.terms if len(term.text) <= MAX_LABEL]
        # the first object decides the split, so a label only ever takes the place of the last
        if count > 1 and labels and attributes.packages and draw.random() < attributes.label_share:
            objects.pop()
            colour = draw.choice([name for name in attributes.colours if attributes.backgrounds_for((*colours, name))])
            label = {"shape": draw.choice(attributes.packages), "colour": colour, "size": "large"}
            objects.append({**label, "label": draw.choice(labels)})
            colours = (*colours, colour)
        return {
            "background": draw.choice(attributes.backgrounds_for(colours)),
            "relation": draw.choice(attributes.relations),
            "objects": objects,
            "style": draw.choice(self.section.captions),
        }


class ImagePlan:
    """The whole plan of a recipe's image section: the renderer, a diffusion model, then the user's own pictures."""

    def __init__(self, section: ImageRecipe, planning: Planning) -> None:
        wanted = {"renderer": section.pictures, "diffusion": section.diffusion.pictures if section.diffusion else 0}
        terms = tuple(planning.terms)
        self.parts = [(Scenes(section, terms, planning.seed, name), count) for name, count in wanted.items()]
        self.num_synthetic = sum(wanted.values())
        self.examples = _distinct(planning.examples, planning.root)
        self._example_seed = int(digest(str(planning.seed), "image examples")[:15], 16)
        self.num_examples = self._count_examples(planning.real_fraction)

    def _count_examples(self, fraction: float) -> int:
        """Take as many examples as the train split bears; without synthetic pictures, all of them."""
        if not self.num_synthetic:
            return len(self.examples)
        num_train = sum(scenes.num_train(count) for scenes, count in self.parts)
        return min(len(self.examples), round(num_train * fraction / (1 - fraction)))

    def __len__(self) -> int:
        """Count the items."""
        return self.num_synthetic + self.num_examples

    def item(self, index: int) -> Item:
        """Give the item at `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a plan of {len(self)}")
        offset = index
        for scenes, count in self.parts:
            if offset < count:
                return scenes.item(offset, index)
            offset -= count
        spec = self.examples[permute(offset, len(self.examples), self._example_seed)]
        return Item("image", "examples", "train", spec, index, {"generator": "examples", "objects": "unknown"})


def _distinct(examples: Sequence[Example], root: str) -> list[Mapping[str, Any]]:
    """Describe each example once: two equal rows would be the same item.

    A file is named from the recipe's folder on, so that an item keeps its key when the folder moves.
    """
    specs = [
        {
            "file": os.path.relpath(example.file, root or os.curdir) if example.file else "",
            "digest": example.file_digest,
            "row": dict(example.fields),
        }
        for example in examples
    ]
    return list({canonical_json(spec): spec for spec in specs}.values())


def plan(section: ImageRecipe, planning: Planning) -> ImagePlan:
    """Plan the pictures of one recipe."""
    return ImagePlan(section, planning)


def palette(section: ImageRecipe, scene: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the hex codes of a scene's background and objects."""
    attributes = section.scene
    return attributes.backgrounds[scene["background"]], [attributes.colours[one["colour"]] for one in scene["objects"]]
