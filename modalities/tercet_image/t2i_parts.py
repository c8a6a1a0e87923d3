"""The parts of a text-to-image pipeline that a training needs, and how its kinds differ.

B: pictures of a batch, c h w: channels, height and width of latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from tercet.compat import prepare_torchaudio
from tercet.errors import ModelError
from tercet_image.pipelines import takes_whole, tokenizers_of

if TYPE_CHECKING:
    import torch

# kinds of pipeline by the class that each derives from: (denoiser, text encoders whose adapter diffusers reads)
KINDS = {
    "StableDiffusionPipeline": ("unet", ("text_encoder",)),
    "StableDiffusionXLPipeline": ("unet", ("text_encoder", "text_encoder_2")),
    "StableDiffusion3Pipeline": ("transformer", ("text_encoder", "text_encoder_2")),
}
Conditions = Mapping[str, Any]  # tensors by name, each with a row a caption


class Parts:
    """A loaded pipeline and what is trained of it.

    `module` holds denoiser and text encoders under their names in the pipeline, so that an adapter's keys are those
    that diffusers knows; it is what an adapter is attached to.
    """

    def __init__(self, pipeline: Any) -> None:
        kind = next((one.__name__ for one in type(pipeline).__mro__ if one.__name__ in KINDS), None)
        if kind is None:
            raise ModelError(
                f"text-to-image can't train a {type(pipeline).__name__}; name a base that is one of these: "
                f"{', '.join(KINDS)}"
            )
        self.pipeline, self.kind = pipeline, kind
        self.denoiser, encoders = KINDS[kind]
        self.encoders = [name for name in encoders if getattr(pipeline, name, None) is not None]
        parts = {name: getattr(pipeline, name) for name in (self.denoiser, *self.encoders)}
        self.module = _together(parts)
        self.module.parts = self
        self.module.enable_gradient_checkpointing = getattr(pipeline, self.denoiser).enable_gradient_checkpointing

    @classmethod
    def load(cls, path: Path) -> Parts:
        """Load a pipeline's folder in fp32, frozen: no code of the folder's own, no pickle.

        Raises:
            ModelError: it holds no pipeline, or one of a kind that can't be trained.
        """
        prepare_torchaudio()
        import diffusers
        import torch
        import transformers

        diffusers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.set_verbosity_error()  # it warns of parts in other classes than it expects
        transformers.utils.logging.disable_progress_bar()
        try:
            load: Any = diffusers.DiffusionPipeline.from_pretrained  # untyped
            pipeline = load(
                path, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False,
                **_absent(path),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{path}: can't be loaded as a diffusers pipeline: {reason}") from error
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        parts = cls(pipeline)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        return parts

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        found: torch.device = self.pipeline.vae.device
        return found

    @property
    def size(self) -> int:
        """Give the width and height of its pictures in pixels."""
        return int(getattr(self.pipeline, self.denoiser).config.sample_size * self.pipeline.vae_scale_factor)

    @property
    def is_text_frozen(self) -> bool:
        """Say whether no text encoder has a parameter to train."""
        encoders = (self.module[name] for name in self.encoders)
        return not any(value.requires_grad for one in encoders for value in one.parameters())

    @property
    def is_flow(self) -> bool:
        """Say whether the model predicts a flow's velocity, not a diffusion's noise."""
        return hasattr(self.pipeline.scheduler, "sigmas") and "FlowMatch" in type(self.pipeline.scheduler).__name__

    @cached_property
    def noising(self) -> Any:
        """Give the schedule that noise is added by in training, whichever sampler the pipeline paints with."""
        import diffusers

        if self.is_flow:
            return self.pipeline.scheduler
        ddpm: Any = diffusers.DDPMScheduler  # a sampler such as Euler's adds noise on a scale of its own
        return ddpm.from_config(self.pipeline.scheduler.config)

    def takes_whole(self, caption: str) -> bool:
        """Say whether every tokenizer takes the caption whole: each text encoder learns from all that it's told."""
        return all(takes_whole(one, caption) for one in tokenizers_of(self.pipeline))

    @property
    def most_tokens(self) -> int:
        """Give the tokens that every tokenizer takes."""
        return min(int(one.model_max_length) for one in tokenizers_of(self.pipeline))

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Give pictures' latents, scaled as the denoiser sees them; a distribution's mean, so that one is kept."""
        import torch

        vae = self.pipeline.vae
        fitted = [ImageOps.fit(one, (self.size, self.size), Image.Resampling.BOX) for one in pictures]
        pixels = self.pipeline.image_processor.preprocess(fitted).to(vae.device)
        with torch.no_grad():
            encoded = vae.encode(pixels)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        result: torch.Tensor = (latents - shift) * vae.config.scaling_factor
        return result

    def encode_captions(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Give what the denoiser is told of captions; gradients reach text encoders that have an adapter."""
        asked = {"device": self.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        if self.kind == "StableDiffusionPipeline":
            return {"encoder_hidden_states": self.pipeline.encode_prompt(list(captions), **asked)[0]}
        if self.kind == "StableDiffusionXLPipeline":
            hidden, _, pooled, _ = self.pipeline.encode_prompt(list(captions), **asked)
            return {"encoder_hidden_states": hidden, "text_embeds": pooled}
        hidden, _, pooled, _ = self.pipeline.encode_prompt(list(captions), None, None, **asked)
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

    def predict(self, noisy_Bchw: torch.Tensor, times_B: torch.Tensor, told: Conditions) -> torch.Tensor:
        """Run the denoiser."""
        import torch

        given = dict(told)
        if "text_embeds" in given:  # SDXL is also told the size that a picture had, and where it was cut
            sizes = torch.tensor([self.size, self.size, 0, 0, self.size, self.size], device=noisy_Bchw.device)
            times = {"text_embeds": given.pop("text_embeds"), "time_ids": sizes.repeat(len(noisy_Bchw), 1)}
            given["added_cond_kwargs"] = times
        name = "sample" if self.denoiser == "unet" else "hidden_states"
        found: torch.Tensor = self.module[self.denoiser](**{name: noisy_Bchw, "timestep": times_B}, **given).sample
        return found


def _absent(path: Path) -> dict[str, None]:
    """Name the parts that the folder says it lacks, a third text encoder for one: diffusers wants to be told."""
    index = json.loads((path / "model_index.json").read_bytes())
    return {name: None for name, value in index.items() if value == [None, None]}


def _together(parts: Mapping[str, Any]) -> Any:
    import torch

    return torch.nn.ModuleDict(parts)


def parts_of(model: Any) -> Parts:
    """Give the parts of a model that `Parts.load` gave, bare or with an adapter on it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: Parts = base.parts
    return found
