"""Colours by name and hex code, and how far apart two of them look."""

from __future__ import annotations

import functools
import math

RGB = tuple[int, int, int]

COLOURS: dict[str, str] = {
    "red": "#e5383b",
    "orange": "#f77f00",
    "yellow": "#ffc300",
    "green": "#2a9d4a",
    "blue": "#1d6fe0",
    "purple": "#7b2cbf",
    "pink": "#ff70b5",
    "black": "#1b1b1f",
}
BACKGROUNDS: dict[str, str] = {
    "white": "#ffffff",
    "cream": "#fff3d6",
    "light blue": "#d9e9fb",
    "light green": "#d9f2e0",
    "light grey": "#e6e9ed",
    "navy": "#14213d",
}


def parse_hex(code: str) -> RGB:
    """Read `#rrggbb`.

    Raises:
        ValueError: `code` is written otherwise.
    """
    digits = code.removeprefix("#")
    if len(digits) != 6 or len(code) != 7:
        raise ValueError(f"{code!r} is not a colour; write #rrggbb, for example #1d6fe0")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError as error:
        raise ValueError(f"{code!r} is not a colour; write #rrggbb, for example #1d6fe0") from error
    return red, green, blue


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """Blend `share` of `other` into `colour`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


@functools.lru_cache(maxsize=4096)
def difference(first: str, second: str) -> float:
    """Measure how far apart two hex colours look: Euclidean distance in CIELAB (delta E 1976).

    About 2 is just visible, 100 is black against white.
    """
    return math.dist(_lab(parse_hex(first)), _lab(parse_hex(second)))


def _lab(colour: RGB) -> tuple[float, float, float]:
    """Convert sRGB to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    red, green, blue = (_linear(channel / 255) for channel in colour)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    fx, fy, fz = (_cube_root(value) for value in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _cube_root(value: float) -> float:
    return value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116
