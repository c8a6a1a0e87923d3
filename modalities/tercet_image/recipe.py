"""What a recipe says about pictures: how many, of which scenes, behind which gates."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tercet.recipe import Section
from tercet_image.colour import BACKGROUNDS, COLOURS, difference, parse_hex

Shape = Literal["circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "ring", "cross", "moon"]
Package = Literal["box", "bottle"]
Relation = Literal["left of", "right of", "above", "below"]
SizeWord = Literal["small", "large"]
Style = Literal["short", "dense"]
ColourName = Annotated[str, Field(pattern=r"^[a-z][a-z-]*( [a-z][a-z-]*){0,3}$", max_length=40)]
Palette = dict[ColourName, str]

SHAPES: tuple[Shape, ...] = (
    "circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "ring", "cross", "moon",
)  # fmt: skip
MIN_CONTRAST = 35.0  # delta E of an object against its background; yellow on white has 80, green on blue 60
MIN_COLOUR_DIFFERENCE = 12.0  # delta E of two object colours: closer ones can't be told apart by name


class SceneAttributes(Section):
    """What a scene may hold. A brand sheet goes into `colours`: its own names with their hex codes."""

    shapes: tuple[Shape, ...] = Field(SHAPES, min_length=1)
    colours: Palette = Field(COLOURS, min_length=2, description="name: '#rrggbb', for example your brand sheet")
    backgrounds: Palette = Field(BACKGROUNDS, min_length=1, description="name: '#rrggbb'")
    sizes: tuple[SizeWord, ...] = Field(("small", "large"), min_length=1)
    relations: tuple[Relation, ...] = Field(("left of", "right of", "above", "below"), min_length=1)
    objects: tuple[int, int] = Field((1, 3), description="fewest and most objects in a scene, within 1 to 3")
    packages: tuple[Package, ...] = Field(("box", "bottle"), description="what a term of sources.terms is written on")
    label_share: float = Field(0.3, ge=0, le=1, description="share of scenes that show a term; 0 without terms")

    @field_validator("colours", "backgrounds")
    @classmethod
    def _is_hex(cls, palette: Palette) -> Palette:
        for code in palette.values():
            parse_hex(code)
        return palette

    @field_validator("colours")
    @classmethod
    def _can_be_told_apart(cls, palette: Palette) -> Palette:
        for (name, code), (other, other_code) in combinations(palette.items(), 2):
            apart = difference(code, other_code)
            if apart < MIN_COLOUR_DIFFERENCE:
                raise ValueError(
                    f"{name} {code} and {other} {other_code} look alike (delta E {apart:.0f}, at least "
                    f"{MIN_COLOUR_DIFFERENCE:.0f} is needed); remove one, or ask for both under one name"
                )
        return palette

    @field_validator("shapes", "sizes", "relations", "packages")
    @classmethod
    def _is_without_repeats(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value!r} is listed twice; list it once")
        return values

    @field_validator("objects")
    @classmethod
    def _is_a_range(cls, objects: tuple[int, int]) -> tuple[int, int]:
        fewest, most = objects
        if not 1 <= fewest <= most <= 3:
            raise ValueError(f"[{fewest}, {most}] is no range within 1 to 3; write for example [1, 3]")
        return objects

    @model_validator(mode="after")
    def _stands_out(self) -> SceneAttributes:
        for name, code in self.colours.items():
            if not self.backgrounds_for((name,)):
                best = max(difference(code, background) for background in self.backgrounds.values())
                raise ValueError(
                    f"colour {name} {code} stands out from no background (delta E at most {best:.0f}, at least "
                    f"{MIN_CONTRAST:.0f} is needed); add a background that differs from it"
                )
        return self

    def backgrounds_for(self, colours: tuple[str, ...]) -> list[str]:
        """List the backgrounds that every one of the named colours stands out from."""
        codes = [self.colours[name] for name in colours]
        return [
            name
            for name, background in self.backgrounds.items()
            if all(difference(code, background) >= MIN_CONTRAST for code in codes)
        ]


class BlankGate(Section):
    """Rejects pictures that show nothing."""

    min_deviation: float = Field(4.0, ge=0, le=128, description="standard deviation of the pixels, 0 to 128")
    min_contrast: float = Field(24.0, ge=0, le=255, description="range between the 1st and 99th percentile")


class NearDuplicatesGate(Section):
    """Rejects a picture that looks like an earlier one."""

    max_hash_distance: int = Field(6, ge=0, le=15, description="differing bits of the 64-bit difference hash")
    max_patch_difference: float = Field(
        16.0, ge=0, le=255, description="largest difference of an eighth-by-eighth patch"
    )


class ImageGates(Section):
    """The gates in order; null switches one off."""

    blank: BlankGate | None = BlankGate()
    near_duplicates: NearDuplicatesGate | None = NearDuplicatesGate()


class ImageRecipe(Section):
    """Pictures with captions and questions whose answers are exact."""

    pictures: int = Field(ge=0, description="pictures by the exact renderer")
    size: int = Field(128, ge=64, le=1024, multiple_of=8, description="pixels, of width and of height")
    scene: SceneAttributes = SceneAttributes()
    captions: tuple[Style, ...] = Field(("short", "dense"), min_length=1, description="caption styles, mixed evenly")
    questions_per_picture: int = Field(3, ge=0, le=8)
    test_fraction: float = Field(
        0.1, ge=0, le=0.5, description="share of pictures, and of colour-shape pairs, held out"
    )
    gates: ImageGates = ImageGates()

    @model_validator(mode="after")
    def _can_hold_pairs_out(self) -> ImageRecipe:
        pairs = len(self.scene.colours) * len(self.scene.shapes)
        if self.test_fraction and pairs < 6:
            raise ValueError(
                f"{pairs} colour-shape pairs are too few to hold any out; name at least 6, or set test_fraction: 0"
            )
        return self
