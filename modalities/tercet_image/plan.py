"""The plan: scenes drawn index by index from the recipe's attributes; some colour-shape pairs are never trained on.

A scene is JSON: `{"background", "relation", "objects": [{"shape", "colour", "size", "label"}], "style"}`. Objects stand
side by side or one above the other; `relation` is where the first stands to the second.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.modality import Planning
from tercet.permutation import permute
from tercet.randomness import digest
from tercet.records import Item
from tercet.sources import Term
from tercet_image.recipe import ImageRecipe

HELD_OUT = "held_out_combinations"
MAX_LABEL = 24  # characters that fit on a box or bottle
Pair = tuple[str, str]  # (colour, shape)


@dataclass(frozen=True)
class Scenes:
    """The scenes of one recipe: an endless sequence, of which the recipe takes the first so many."""

    section: ImageRecipe
    terms: Sequence[Term]
    seed: int

    def __len__(self) -> int:
        """Count the pictures."""
        return self.section.pictures

    def item(self, index: int) -> Item:
        """Plan the picture at `index`: the first object's pair decides its split."""
        pairs = self.pairs()
        turn, place = divmod(index, len(pairs))
        pair = pairs[permute(place, len(pairs), int(digest(str(self.seed), "pairs", str(turn))[:15], 16))]
        split = HELD_OUT if pair in self.held_out() else "train"
        draw = random.Random(f"{self.seed}/scene/{index}")
        scene = self.scene(pair, split, draw)
        cell = {"objects": str(len(scene["objects"]))}
        return Item("image", "renderer", split, {"number": index, "scene": scene}, index, cell)

    def pairs(self) -> list[Pair]:
        """List every colour-shape pair."""
        attributes = self.section.scene
        return [(colour, shape) for colour in attributes.colours for shape in attributes.shapes]

    def held_out(self) -> frozenset[Pair]:
        """Choose the pairs that appear in no training picture."""
        pairs = self.pairs()
        count = round(self.section.test_fraction * len(pairs))
        return frozenset(sorted(pairs, key=lambda pair: digest(str(self.seed), "held out", *pair))[:count])

    def scene(self, pair: Pair, split: str, draw: random.Random) -> dict[str, Any]:
        """Fill a scene around its first object."""
        attributes = self.section.scene
        held_out = self.held_out()
        free = [one for one in self.pairs() if split == HELD_OUT or one not in held_out]
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


def plan(section: ImageRecipe, planning: Planning) -> Scenes:
    """Plan the pictures."""
    return Scenes(section, tuple(planning.terms), planning.seed)


def palette(section: ImageRecipe, scene: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the hex codes of a scene's background and objects."""
    attributes = section.scene
    return attributes.backgrounds[scene["background"]], [attributes.colours[one["colour"]] for one in scene["objects"]]
