"""Training data of the task `text-to-image`: latents of pictures, and what the denoiser is told of their captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tercet.errors import NothingSurvived
from tercet.recipe import Train
from tercet.records import Record
from tercet.train.mixing import draw_pass, record_weights
from tercet.train.task import OnUnits, Row
from tercet_image.t2i_parts import Parts
from tercet_image.vl_reader import open_picture

if TYPE_CHECKING:
    import torch

ENCODED_AT_ONCE = 32
Told = Mapping[str, Any]  # tensors of one caption, by the name that the denoiser knows them by
WEIGHTED_PASSES = 4  # where records come more or less often than once, several draws stand for their weights


@dataclass(frozen=True)
class Captioned:
    """A picture as PNG with its caption; `name` is its record's id."""

    name: str
    picture: bytes
    caption: str


@dataclass(frozen=True)
class Encoded:
    """A picture as the denoiser sees it; `told` is None where its text encoder is trained."""

    name: str
    caption: str
    latents: torch.Tensor
    told: Told | None


def captioned(name: str, payload: Mapping[str, Any]) -> Captioned:
    """Take a payload's picture and caption."""
    return Captioned(name, payload["image"], payload["caption"])


def prepare(
    parts: Parts, records: Sequence[Record], general: Iterable[Captioned], train: Train, seed: int, on_units: OnUnits
) -> PictureData:
    """Encode every picture once, and every caption where no text encoder is trained.

    A caption that a tokenizer would cut is left out and counted.

    Raises:
        NothingSurvived: there is no record, or no caption that fits.
        CorruptError: a record's picture is missing or broken.
    """
    if not records:
        raise NothingSurvived("no accepted picture to train on; tercet report shows why they were rejected")
    fitting = [record for record in records if parts.takes_whole(record.payload["caption"])]
    left_out = len(records) - len(fitting)
    if not fitting:
        raise NothingSurvived(
            f"none of {left_out} captions fits the base's tokenizer; set modalities.image.captions: [short], or name "
            "another train.base"
        )
    own = [captioned(record.id, record.payload) for record in fitting]
    replay = [one for one in general if parts.takes_whole(one.caption)]
    encoded: list[Encoded] = []
    held = [*own, *replay]
    for start in range(0, len(held), ENCODED_AT_ONCE):
        encoded += _encoded(parts, held[start : start + ENCODED_AT_ONCE])
        on_units(len(encoded), len(held))
    is_weighed = train.weights is not None or train.real_fraction is not None
    weights = record_weights(fitting, train) if is_weighed else None
    passes = (
        [draw_pass(weights, f"{seed}/draw/{at}") for at in range(WEIGHTED_PASSES)] if weights else [range(len(own))]
    )
    return PictureData(parts, [encoded[at] for one in passes for at in one], encoded[len(own) :], left_out)


def _encoded(parts: Parts, some: Sequence[Captioned]) -> list[Encoded]:
    latents = parts.encode_pictures([open_picture(one.picture, one.name) for one in some])
    told: Sequence[Told | None] = [None] * len(some)
    if parts.is_text_frozen:
        told = told_apart(parts, [one.caption for one in some])
    return [Encoded(one.name, one.caption, *both) for one, *both in zip(some, latents, told, strict=True)]


def told_apart(parts: Parts, captions: Sequence[str]) -> list[Told]:
    """Encode captions without gradients, one mapping each."""
    import torch

    with torch.no_grad():
        told = parts.encode_captions(captions)
    return [{name: value[at] for name, value in told.items()} for at in range(len(captions))]


class PictureData:
    """Pictures of the run and of general scenes, encoded."""

    padded_to = 1.0
    unit = "pictures"

    def __init__(self, parts: Parts, own: Sequence[Encoded], general: Sequence[Encoded], left_out: int) -> None:
        self.parts, self.own, self.general, self.left_out = parts, own, general, left_out
        self.rows, self.replay = ([Row(1.0, 1, (one.name,)) for one in some] for some in (own, general))
        self.untold = told_apart(parts, [""])[0] if parts.is_text_frozen else None

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> dict[str, Any]:
        """Make a micro-batch: latents, captions, and what the denoiser is told of each and of none."""
        import torch

        chosen = [*(self.own[at] for at in rows), *(self.general[at] for at in replay)]
        return {
            "latents": torch.stack([one.latents for one in chosen]),
            "captions": [one.caption for one in chosen],
            "told": [one.told for one in chosen],
            "untold": self.untold,
        }

    def describe(self) -> dict[str, Any]:
        """Say what the data holds."""
        return {
            "pictures": len({one.name for one in self.own}),
            "replay_pictures": len(self.general),
            "over_context": self.left_out,
            "captions_cached": self.untold is not None,
        }
