"""Masks of each shape, drawn by the renderer's geometry at many radii, and the one that covers an object best.

Shapes: T templates, W side of the window that all of them and the object are laid into, centre of mass in its middle.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tercet_image.renderer import RADIUS, SUPERSAMPLE, draw_shape

NUM_RADII = 25
WINDOW = 0.55  # of the picture's width: the largest shape spans 0.48
Cover = NDArray[np.float64]  # how much of each pixel an object covers, 0 to 1


@dataclass(frozen=True, slots=True)
class Fit:
    """The shape that covers an object best; radius and centre are shares of the picture's sides."""

    shape: str
    radius: float
    x: float
    y: float
    overlap: float  # intersection over union


@dataclass(frozen=True, slots=True)
class Templates:
    """All masks; `to_centre` is the way from a mask's centre of mass to the shape's centre, in pixels."""

    kinds: tuple[tuple[str, float], ...]  # shape and radius
    masks_TWW: Cover
    to_centre: tuple[tuple[float, float], ...]


@functools.lru_cache(maxsize=8)
def templates(size: int, shapes: tuple[str, ...]) -> Templates:
    """Draw each shape at radii from below the smallest to above the largest of a picture of `size` pixels."""
    radii = np.geomspace(0.8 * min(RADIUS.values()), 1.25 * max(RADIUS.values()), NUM_RADII)
    kinds = tuple((shape, float(radius)) for shape in shapes for radius in radii)
    drawn = [_draw(shape, radius, size) for shape, radius in kinds]
    return Templates(kinds, np.stack([mask for mask, _ in drawn]), tuple(way for _, way in drawn))


def _draw(shape: str, radius: float, size: int) -> tuple[Cover, tuple[float, float]]:
    side = round(WINDOW * size)
    middle = side / 2
    first = _mask(shape, radius * size, side, (middle, middle))
    x, y = _centre_of_mass(first)
    way = (middle - x, middle - y)
    return _mask(shape, radius * size, side, (middle + way[0], middle + way[1])), way


def _mask(shape: str, radius: float, side: int, at: tuple[float, float]) -> Cover:
    large = Image.new("RGB", (side * SUPERSAMPLE,) * 2, "black")
    centre = (at[0] * SUPERSAMPLE, at[1] * SUPERSAMPLE)
    draw_shape(ImageDraw.Draw(large), shape, centre, radius * SUPERSAMPLE, (255, 255, 255), (0, 0, 0))
    return np.asarray(large.resize((side, side), Image.Resampling.BOX).getchannel(0), np.float64) / 255


def best_template(cover_HW: Cover, shapes: tuple[str, ...]) -> Fit:
    """Lay every mask on an object, centre of mass on centre of mass, and keep the one with the best overlap."""
    from scipy import ndimage

    size = cover_HW.shape[1]
    known = templates(size, shapes)
    side = known.masks_TWW.shape[1]
    x, y = _centre_of_mass(cover_HW)
    padded = np.pad(cover_HW, side)
    left, top = int(x + side / 2), int(y + side / 2)
    window = padded[top : top + side + 1, left : left + side + 1]
    rest = (y + side / 2 - top, x + side / 2 - left)
    object_WW = ndimage.shift(window, (-rest[0], -rest[1]), order=1)[:side, :side]
    both = np.minimum(known.masks_TWW, object_WW).sum((1, 2))
    either = np.maximum(known.masks_TWW, object_WW).sum((1, 2))
    best = int((both / either).argmax())
    (shape, radius), way = known.kinds[best], known.to_centre[best]
    return Fit(shape, radius, (x + way[0]) / size, (y + way[1]) / size, float(both[best] / either[best]))


def _centre_of_mass(cover: Cover) -> tuple[float, float]:
    """Return x and y in pixels from the upper left corner."""
    rows, columns = cover.sum(1), cover.sum(0)
    places = [float((line * (np.arange(len(line)) + 0.5)).sum() / line.sum()) for line in (columns, rows)]
    return places[0], places[1]
