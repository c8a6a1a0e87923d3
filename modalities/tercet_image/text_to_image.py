"""The training task `text-to-image`: a diffusers pipeline learns a palette, and an independent checker looks at it.

The adapter sits in the denoiser and in the text encoders: a name that the pipeline never read is several pieces of
words to it, and what they mean together is learned where they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import ModelError, SourceError, UsageError
from tercet.machine import version_of
from tercet.modality import Shown
from tercet.models import ResolvedModel
from tercet.recipe import Recipe
from tercet.train.task import ONE_IN_A_HUNDRED, Defaults, Example, Measured, OnUnits, Suite
from tercet_image.picture_task import PictureTask, written
from tercet_image.show import show_pictures
from tercet_image.t2i_judging import (
    ATTRIBUTE_ERRORS,
    DIVERSITY,
    FALSE_COLOURS,
    OTHER_ERRORS,
    count_pictures,
    picture_files,
    read_pictures,
    write_pictures,
)
from tercet_image.t2i_suites import can_be_judged, caption_example, held_out_examples, painted, read_suites

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from tercet_image.t2i_data import PictureData
    from tercet_image.t2i_parts import Parts

ATTENTION_AND_TEXT = (  # the denoiser's attention; in text encoders the whole block
    r"(unet|transformer)\..*(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|text_encoder(_2)?\..*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
)
BATCH_SIZE = 16  # pictures of a pass


class TextToImage(PictureTask):
    """Fine-tunes a text-to-image pipeline on a run's pictures and counts what it paints wrong."""

    defaults = Defaults(
        base="bundled:image/scenes-diffusion",
        targets=ATTENTION_AND_TEXT,
        learning_rate=1e-3,
        replay=0.3,
        lora_scale=1.0,
        pipeline_tag="text-to-image",
        false_triggers=ONE_IN_A_HUNDRED,
    )
    primary_metric = ATTRIBUTE_ERRORS
    other_metric = OTHER_ERRORS
    general_metric = ATTRIBUTE_ERRORS
    false_trigger_metric = FALSE_COLOURS
    rates: tuple[str, ...] = (DIVERSITY,)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.sections.evaluate.general:
            raise UsageError(
                f"{recipe.path}: evaluate.general: text-to-image is judged on scenes whose every attribute is known, "
                "and draws its general ones itself; take the key out"
            )
        self.painting = self.section.training
        self.settings: Mapping[str, Any] = {
            "min_snr_gamma": self.painting.min_snr_gamma, "caption_dropout": self.painting.caption_dropout
        }  # fmt: skip
        self.decoding: Mapping[str, Any] = {
            "steps": self.painting.steps,
            "guidance": self.painting.guidance,
            "batch": BATCH_SIZE,
            **{name: version_of(name) for name in ("torch", "transformers", "diffusers")},
        }
        self._pipeline_class: Any = None  # set with the base

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Refuse to train what no caption could judge."""
        del base
        held_out_examples(self.section, run_dir)

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load a pipeline in fp32, frozen; the module holds its denoiser and its text encoders.

        Raises:
            ModelError: it can't be loaded, or is of a kind that can't be trained.
        """
        from tercet_image.t2i_parts import Parts

        parts = Parts.load(path)
        self._pipeline_class = type(parts.pipeline)
        found: torch.nn.Module = parts.module
        return found

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> PictureData:
        """Encode the training pictures, and general scenes as many as replay may take."""
        from tercet_image.t2i_data import captioned, prepare
        from tercet_image.t2i_parts import parts_of

        records = self._trained(run_dir)
        general = (captioned(key, payload) for key, payload in self._replayed(len(records)))
        return prepare(parts_of(model), records, general, self.recipe.sections.train, seed, on_units)

    def validation(self, run_dir: Path) -> list[Example]:
        """Read the captions of the training pictures that are kept out of training to be watched.

        Those of them that the checker can't judge are not watched either.
        """
        return [
            caption_example(record.id, record.payload, record.id, is_general=False)
            for record in self._watched(run_dir)
            if can_be_judged(record.payload)
        ]

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the denoiser's error; some captions are left out, so that guidance has something to start from."""
        import torch

        from tercet_image.t2i_loss import denoising_loss
        from tercet_image.t2i_parts import parts_of

        parts = parts_of(model)
        dropped = (torch.rand(len(batch["captions"])) < self.painting.caption_dropout).tolist()
        if batch["untold"] is None:
            captions = ["" if drop else caption for caption, drop in zip(batch["captions"], dropped, strict=True)]
            told = parts.encode_captions(captions)
        else:
            rows = [batch["untold"] if drop else one for one, drop in zip(batch["told"], dropped, strict=True)]
            told = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return denoising_loss(parts, batch["latents"], told, self.painting.min_snr_gamma)

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read the held-out captions and the general ones."""
        return read_suites(self.section, run_dir)

    def read_input(self, text: str) -> Example:
        """Take a caption."""
        if not text.strip():
            raise SourceError("an empty caption; write what is to be painted")
        return Example(text, text, "", painted(text, text))

    def answer(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[str]:
        """Paint each caption with each of its seeds, in passes of one size; an answer is JSON with PNG pictures.

        Raises:
            SourceError: the user's own caption is longer than the base can read.
        """
        from tercet_image.t2i_parts import parts_of

        parts = parts_of(model)
        waiting: list[Image.Image] = []
        seeds = [_seeds(parts, one) for one in examples]
        asked = [(one.content["caption"], seed) for one, some in zip(examples, seeds, strict=True) for seed in some]
        done = 0
        for start in range(0, len(asked), BATCH_SIZE):
            waiting += self._paint(parts, asked[start : start + BATCH_SIZE])
            while done < len(examples) and len(waiting) >= (count := len(seeds[done])):
                yield write_pictures(waiting[:count])
                del waiting[:count]
                done += 1
            on_units(done, len(examples))
        yield from [write_pictures([])] * (len(examples) - done)  # where no caption could be painted

    def _paint(self, parts: Parts, asked: Sequence[tuple[str, int]]) -> list[Image.Image]:
        """Paint one pass, filled up with its last picture, so that its size never depends on how many are left."""
        import torch

        filled = [*asked, *[asked[-1]] * (BATCH_SIZE - len(asked))]
        try:
            made = parts.pipeline(
                prompt=[caption for caption, _ in filled],
                generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in filled],
                width=parts.size,
                height=parts.size,
                num_inference_steps=self.painting.steps,
                guidance_scale=self.painting.guidance,
                output_type="pil",
            )
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{parts.kind}: {str(error)[:200]}; modalities.image.training: try other steps or guidance"
            ) from error
        return list(made.images[: len(asked)])

    def measure(self, example: Example, prediction: str) -> Measured:
        """Hold pictures against the scene that their caption tells; without any there is nothing to count."""
        wanted, pictures = json.loads(example.reference), read_pictures(prediction)
        if not pictures:
            return Measured({})
        return Measured(count_pictures(pictures, wanted["scene"], self.section.scene, is_general=wanted["general"]))

    def show_example(self, example: Example) -> Shown:
        """Show the caption."""
        return show_pictures([], example.content["caption"])

    def show_answer(self, answer: str) -> Shown:
        """Show the pictures."""
        files = picture_files(answer)
        return show_pictures(files, "" if files else "not painted: the caption is longer than the base can read")

    def write_layout(self, adapter: Path) -> None:
        """Write the adapter for `pipeline.load_lora_weights` beside PEFT's files."""
        from tercet_image.t2i_layout import write_diffusers_layout

        write_diffusers_layout(self._pipeline_class, adapter)

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Write the merged pipeline as diffusers loads it.

        Raises:
            ModelError: the adapter belongs to another base, or is damaged.
            StoreError: `out` can't be written.
        """
        from tercet.train.loading import load

        model: Any = self.load_base(base)
        pipeline = model.parts.pipeline
        wrapped: Any = load(model, adapter)
        wrapped.merge_and_unload()  # in place: the pipeline's own parts
        with written(out):
            pipeline.save_pretrained(out, safe_serialization=True)


def _seeds(parts: Parts, example: Example) -> Sequence[int]:
    """Give the seeds that a caption is painted with; none where a tokenizer would cut it and judge half a scene."""
    caption: str = example.content["caption"]
    if parts.takes_whole(caption):
        seeds: Sequence[int] = example.content["seeds"]
        return seeds
    if not example.reference:
        raise SourceError(
            f"{caption[:60]!r}...: the base reads at most {parts.most_tokens} tokens; write a shorter one"
        )
    return ()
