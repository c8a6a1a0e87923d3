"""What a recipe says about pictures: how many, of which scenes, behind which gates."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tercet.errors import ModelError
from tercet.models.reference import parse_reference
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


class Diffusion(Section):
    """Pictures of planned scenes by a diffusers text-to-image pipeline; the caption is the prompt.

    Nothing checks that such a picture shows its scene. So it comes without questions, and its lineage lists what is
    unverified; `keep_questions: true` adds the questions, whose answers are the scene's and perhaps not the picture's.
    The scenes are those of the renderer, in the same order and the same splits.
    """

    pictures: int = Field(ge=0, le=100_000_000)
    model: str = Field(description="a text-to-image pipeline: hf:owner/name[@revision] or path:./dir, as safetensors")
    size: int = Field(512, ge=32, le=2048, multiple_of=8, description="pixels, of width and of height")
    steps: int | None = Field(None, ge=1, le=1000, description="default: the pipeline's own")
    guidance: float | None = Field(None, ge=0, le=100, description="default: the pipeline's own")
    negative_prompt: str | None = Field(None, min_length=1, max_length=1000)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="bfloat16 on a GPU, float32 on a CPU"
    )
    batch: Literal[1, 2, 4, 8] | None = Field(
        None, description="pictures per pass; default: 4 on a GPU, 1 on a CPU, where more is no faster"
    )
    keep_questions: bool = Field(False, description="keep questions whose answers nobody held against the picture")

    @field_validator("model")
    @classmethod
    def _is_a_reference(cls, model: str) -> str:
        try:
            reference = parse_reference(model)
        except ModelError as error:
            raise ValueError(str(error)) from error
        if reference.scheme not in ("hf", "path"):
            raise ValueError("no package carries a diffusion model; name one: hf:owner/name or path:./dir")
        return model


class PictureTraining(Section):
    """How pictures are trained on and painted; changes no record."""

    describe: bool = Field(
        default=False,
        description="vision-language: learn captions too; a picture without questions always gives its own",
    )
    min_snr_gamma: float | None = Field(
        5.0, gt=0, description="text-to-image: bounds a step's weight (arXiv:2303.09556); null: all weigh the same"
    )
    caption_dropout: float = Field(0.1, ge=0, lt=1, description="text-to-image: share trained without a caption")
    steps: int = Field(20, ge=1, le=1000, description="text-to-image: of a picture painted to be judged")
    guidance: float = Field(3.0, ge=0, le=100, description="text-to-image: of a picture painted to be judged")


class ImageRecipe(Section):
    """Pictures with captions and questions: drawn exactly, by a diffusion model, or the user's own."""

    pictures: int = Field(0, ge=0, le=100_000_000, description="by the exact renderer: captions and answers are true")
    diffusion: Diffusion | None = None
    size: int = Field(128, ge=64, le=1024, multiple_of=8, description="pixels of a rendered picture's sides")
    scene: SceneAttributes = SceneAttributes()
    captions: tuple[Style, ...] = Field(("short", "dense"), min_length=1, description="caption styles, mixed evenly")
    questions_per_picture: int = Field(3, ge=0, le=8, description="of a rendered picture")
    test_fraction: float = Field(
        0.1, ge=0, le=0.5, description="share of pictures, and of colour-shape pairs, held out"
    )
    max_example_side: int = Field(2048, ge=64, le=8192, description="pixels; a larger one of your own pictures fails")
    gates: ImageGates = ImageGates()
    training: PictureTraining = PictureTraining()

    @model_validator(mode="after")
    def _can_hold_pairs_out(self) -> ImageRecipe:
        pairs = len(self.scene.colours) * len(self.scene.shapes)
        if self.test_fraction and pairs < 6:
            raise ValueError(
                f"{pairs} colour-shape pairs are too few to hold any out; name at least 6, or set test_fraction: 0"
            )
        return self

    @model_validator(mode="after")
    def _catches_black_pictures(self) -> ImageRecipe:
        if self.diffusion and self.gates.blank is None:
            raise ValueError("gates.blank: null lets through what a safety filter blackened; keep it with diffusion")
        return self
