"""Say what a picture of a scene shows: background, objects, their colours, shapes, sizes and places, by rules alone.

The judge of pictures that a model painted. It measures colours against named palettes in CIELAB and shapes against
masks drawn by the renderer's own geometry; it learns nothing and shares nothing with any model. On the renderer's
pictures of 64 pixels it is right in at least 99.5% of each attribute (tests/modalities/image/test_checker.py).

Shapes: H W of the picture, h w of one object's window, P names of a palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tercet_image.checker_masks import best_template
from tercet_image.recipe import MIN_CONTRAST, SHAPES

UNKNOWN = "unknown"
UNKNOWN_COLOUR = 20.0  # delta E from the nearest name beyond which a colour has none; names are 12 apart at least
FLAT = 8.0  # delta E between neighbours within which a pixel is no edge: edges of red on white look pink
SMALLEST = 0.006  # of the picture's area: the smallest shape, a small moon, has 0.012; less is a speck
LEAST_FIT = 0.6  # intersection over union with the best shape; less is no shape at all
SIZE_LIMIT = 0.15  # of the picture's width: small ones have a radius of 0.11, large ones 0.19
OWN_KINDS = ("colour", "shape", "size")  # what an object has by itself
MOST_MATCHED = 8  # objects that are matched in every order
Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SeenObject:
    """One object in a picture; `x` and `y` are its centre as shares of the picture's sides."""

    shape: str
    colour: str
    size: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows; `unknown` stands for a colour or shape that has no name."""

    background: str
    objects: tuple[SeenObject, ...]


def look(
    picture: Image.Image, colours: Mapping[str, str], backgrounds: Mapping[str, str], shapes: Sequence[str] = SHAPES
) -> Seen:
    """See what a square picture shows, given the object colours and backgrounds by name with their `#rrggbb`."""
    rgb_HW3 = np.asarray(picture.convert("RGB"), np.float64)
    lab_HW3 = to_lab(rgb_HW3)
    border = np.concatenate([lab_HW3[0], lab_HW3[-1], lab_HW3[:, 0], lab_HW3[:, -1]])
    ground = np.median(border, axis=0)
    apart = np.linalg.norm(border - ground, axis=-1)
    if apart.min() >= FLAT:  # a border of two colours has a median that is neither
        ground = border[apart.argmin()]
    found = [_see_object(part, rgb_HW3, lab_HW3, ground, colours, shapes) for part in _parts(lab_HW3, ground, colours)]
    return Seen(_nearest(ground, backgrounds), tuple(sorted(found, key=lambda one: (one.x, one.y))))


def relation_of(first: SeenObject, second: SeenObject) -> str:
    """Say where the first object stands to the second: along the axis on which they are farther apart."""
    right, down = first.x - second.x, first.y - second.y
    if abs(right) >= abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def attribute_hits(scene: Mapping[str, Any], seen: Seen) -> dict[str, bool]:
    """Hold what is seen against a scene: for each attribute, whether the picture has all of it right.

    Objects are matched so that most colours, shapes and sizes are right. An object that is missing has none; one too
    many only spoils `number`. `relation` is judged in scenes of two or more, whether or not a caption tells it.
    """
    wanted = scene["objects"]
    likely = _most_alike(wanted, seen.objects)
    places: list[SeenObject | None] = [*likely, *[None] * max(0, len(wanted) - len(likely))]
    matched = max(
        (_object_hits(scene, chosen) for chosen in permutations(places, len(wanted))),
        # where things stand decides between equals alone: else a wrong pair would pass for its own mirror image
        key=lambda hits: (sum(hit for (kind, _), hit in hits.items() if kind != "relation"), sum(hits.values())),
    )
    return {
        "number": len(seen.objects) == len(wanted),
        "background": seen.background == scene["background"],
        **{
            kind: all(hit for (name, _), hit in matched.items() if name == kind)
            for kind in dict.fromkeys(name for name, _ in matched)
        },
    }


def _most_alike(wanted: Sequence[Mapping[str, str]], seen: Sequence[SeenObject]) -> list[SeenObject]:
    """Leave out of many objects those that no best match can need: 160 parts would be matched in 4 million ways."""
    if len(seen) <= MOST_MATCHED:
        return list(seen)
    kept: set[int] = set()
    for thing in wanted:
        rights = [sum(getattr(one, kind) == thing[kind] for kind in OWN_KINDS) for one in seen]
        kept.update(sorted(range(len(seen)), key=rights.__getitem__, reverse=True)[: len(wanted)])
    return [seen[at] for at in sorted(kept)]


def _object_hits(scene: Mapping[str, Any], chosen: Sequence[SeenObject | None]) -> dict[tuple[str, int], bool]:
    wanted = scene["objects"]
    hits = {
        (kind, at): one is not None and getattr(one, kind) == thing[kind]
        for at, (thing, one) in enumerate(zip(wanted, chosen, strict=True))
        for kind in OWN_KINDS
    }
    if len(wanted) > 1:
        first, second = chosen[:2]
        told = first is not None and second is not None and relation_of(first, second) == scene["relation"]
        hits["relation", 0] = told
    return hits


def to_lab(rgb: Pixels) -> Pixels:
    """Convert sRGB, 0 to 255 in the last axis, to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _palette_lab(palette: Mapping[str, str]) -> Pixels:
    return to_lab(np.array([list(bytes.fromhex(code.removeprefix("#"))) for code in palette.values()], np.float64))


def _nearest(colour: Pixels, palette: Mapping[str, str]) -> str:
    apart = np.linalg.norm(_palette_lab(palette) - colour, axis=-1)
    return list(palette)[int(apart.argmin())] if apart.min() <= UNKNOWN_COLOUR else UNKNOWN


def _parts(lab_HW3: Pixels, ground: Pixels, colours: Mapping[str, str]) -> list[Mask]:
    """Find what stands out from the background: connected parts, each cut by colour where two objects touch."""
    from scipy import ndimage

    stands_out = np.linalg.norm(lab_HW3 - ground, axis=-1) > MIN_CONTRAST / 2
    smallest = SMALLEST * stands_out.size
    flat = _is_flat(lab_HW3)
    nearest_HW = np.linalg.norm(lab_HW3[:, :, None] - _palette_lab(colours), axis=-1).argmin(-1)
    labels, number = ndimage.label(stands_out)
    found = []
    for part in (labels == at for at in range(1, number + 1)):
        if part.sum() < smallest:
            continue
        names, counts = np.unique(nearest_HW[part & flat], return_counts=True)
        main = names[counts >= smallest / 2]
        if len(main) < 2:
            found.append(part)
            continue
        # each pixel goes to the colour whose flat pixels are nearest to it
        far = np.stack([ndimage.distance_transform_edt(~(part & flat & (nearest_HW == name))) for name in main])
        found += [part & (far.argmin(0) == at) for at in range(len(main))]
    return [part for part in found if part.sum() >= smallest]


def _is_flat(lab_HW3: Pixels) -> Mask:
    """Mark the pixels that look like the four beside them."""
    flat = np.ones(lab_HW3.shape[:2], bool)
    across = np.linalg.norm(np.diff(lab_HW3, axis=1), axis=-1) < FLAT
    down = np.linalg.norm(np.diff(lab_HW3, axis=0), axis=-1) < FLAT
    flat[:, 1:] &= across
    flat[:, :-1] &= across
    flat[1:] &= down
    flat[:-1] &= down
    return flat


def _see_object(
    part: Mask, rgb_HW3: Pixels, lab_HW3: Pixels, ground: Pixels, colours: Mapping[str, str], shapes: Sequence[str]
) -> SeenObject:
    """Name one part: its colour by the median of its inside, its shape by the template that covers it best."""
    apart = np.linalg.norm(lab_HW3 - ground, axis=-1)
    inside = part & (apart >= np.quantile(apart[part], 0.5))
    flat_inside = part & _is_flat(lab_HW3)
    inside = flat_inside if flat_inside.sum() >= 8 else inside
    colour = np.median(lab_HW3[inside], axis=0)
    fill, paper = np.median(rgb_HW3[inside], axis=0), np.median(rgb_HW3[apart < FLAT], axis=0)
    along = fill - paper
    cover_HW = np.clip((rgb_HW3 - paper) @ along / max(1e-9, float(along @ along)), 0, 1)
    cover_HW = np.where(_grow(part), cover_HW, 0)
    if not cover_HW.any():  # the median of a motley part may be the background's own colour
        cover_HW = part.astype(np.float64)
    fit = best_template(cover_HW, tuple(shapes))
    size = "small" if fit.radius < SIZE_LIMIT else "large"
    return SeenObject(fit.shape if fit.overlap >= LEAST_FIT else UNKNOWN, _nearest(colour, colours), size, fit.x, fit.y)


def _grow(part: Mask) -> Mask:
    """Add the pixels around a part: the edge that is more background than object."""
    from scipy import ndimage

    grown: Mask = ndimage.binary_dilation(part, iterations=1)
    return grown
