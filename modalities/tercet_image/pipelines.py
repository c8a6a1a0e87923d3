"""Load a diffusers text-to-image pipeline, and say how this one is asked.

Pipelines differ in what their calls take; `Painter` offers what they have in common and refuses the rest before the
first picture. Only diffusers' and transformers' own classes are loaded, from safetensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tercet.compat import prepare_torchaudio
from tercet.errors import BackendError, MissingExtra, ModelError
from tercet.models import ResolvedModel, resolve
from tercet_image.recipe import Diffusion

GPU_BATCH = 4
NEEDED = ("prompt", "generator", "output_type")  # what a text-to-image call can't do without
OPTION_OF = {"height": "size", "num_inference_steps": "steps", "guidance_scale": "guidance",
             "negative_prompt": "negative_prompt"}  # argument of the call -> key of the recipe  # fmt: skip


@dataclass(frozen=True)
class Painter:
    """A loaded pipeline with the recipe's settings: prompts and seeds in, pictures out.

    A convolution over four pictures may sum in another order than over one: a picture made alone differs from the same
    picture made beside others, in the last bit of some pixels. So every pass holds `batch` pictures, a short one filled
    up with copies. Then a picture depends on its own prompt and seed alone, given that the pipeline pads each prompt to
    a fixed length; for one that pads to the longest of a pass, set `batch: 1`.
    """

    resolved: ResolvedModel
    pipeline: Any
    options: Mapping[str, Any]  # what every call of the pipeline gets
    parameters: Mapping[str, Any]  # what decides the pixels, beside model, prompt and seed
    batch: int

    def paint(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Make one picture per prompt; at most `batch` of them.

        Raises:
            BackendError: the pipeline failed; `retryable` when it was for want of memory.
        """
        import torch

        fill = [len(prompts) - 1] * (self.batch - len(prompts))
        rows = [*range(len(prompts)), *fill]
        options = dict(self.options)
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(rows)
        try:
            answer = self.pipeline(
                prompt=[prompts[row] for row in rows],
                # noise is drawn on the CPU, so that the seed means the same on every device
                generator=[torch.Generator("cpu").manual_seed(seeds[row]) for row in rows],
                output_type="pil",
                **options,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            is_memory = "memory" in str(error)
            fix = "lower its size or batch" if is_memory else "try another size, steps or guidance, or another model"
            raise BackendError(
                f"{self.resolved.reference}: {str(error)[:200]}; modalities.image.diffusion: {fix}", retryable=is_memory
            ) from error
        return list(answer.images[: len(prompts)])

    def takes_whole(self, prompt: str) -> bool:
        """Say whether any tokenizer takes the prompt whole: beside T5's, the short one of CLIP sets but the mood."""
        found = tokenizers_of(self.pipeline)
        return not found or any(takes_whole(one, prompt) for one in found)


def tokenizers_of(pipeline: Any) -> list[Any]:
    """List a pipeline's tokenizers."""
    parts = pipeline.components.items()
    return [part for name, part in parts if name.startswith("tokenizer") and part is not None]


def takes_whole(tokenizer: Any, text: str) -> bool:
    """Say whether a tokenizer cuts nothing off a text."""
    return len(tokenizer(text)["input_ids"]) <= int(tokenizer.model_max_length)


def load_painter(settings: Diffusion, cores: int, root: str | Path) -> Painter:
    """Load the pipeline that the recipe names, on a GPU where there is one.

    Raises:
        ModelError: the model isn't there, isn't a text-to-image pipeline, or doesn't take an option of the recipe.
        MissingExtra: diffusers or torch isn't installed.
    """
    diffusers, torch = _libraries()
    resolved = resolve(settings.model, root=root)
    torch.set_num_threads(max(1, cores))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if device == "cuda" else "float32"
    pipeline = _load(diffusers, resolved, getattr(torch, dtype)).to(device)
    call = inspect.signature(type(pipeline).__call__).parameters
    _check_is_text_to_image(pipeline, call, resolved.reference)
    options = _options(settings, call, resolved.reference)
    batch = settings.batch or (GPU_BATCH if device == "cuda" else 1)
    asked = {name: options.get(name, call[name].default) for name in ("num_inference_steps", "guidance_scale")
             if name in call}  # fmt: skip
    parameters = {
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__ if hasattr(pipeline, "scheduler") else "",
        **{OPTION_OF[name]: value for name, value in asked.items()},
        "size": settings.size,
        "negative_prompt": settings.negative_prompt or "",
        "dtype": dtype,
        "device": device,
        "batch": batch,
    }
    return Painter(resolved, pipeline, options, parameters, batch)


def _libraries() -> tuple[Any, Any]:
    prepare_torchaudio()
    try:
        import diffusers
        import torch
        import transformers  # noqa: F401 - diffusers would only fail later, with a name of its own making
    except ModuleNotFoundError as error:
        raise MissingExtra(f"a diffusion model needs {error.name!r}; run: pip install 'tercet[image]'") from error
    return diffusers, torch


def _load(diffusers: Any, resolved: ResolvedModel, dtype: Any) -> Any:
    """Load from the folder alone: no code of the folder's own, no pickle, no network."""
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            resolved.path, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model '{resolved.reference}': can't be loaded as a diffusers pipeline: {reason}; it needs a "
            "model_index.json and safetensors, and no code of its own"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None  # SDXL marks the pixels wherever a certain package happens to be installed
    return pipeline


def _check_is_text_to_image(pipeline: Any, call: Mapping[str, Any], reference: str) -> None:
    wants_image = "controlnet" in pipeline.components or ("image" in call and not _may_do_without(pipeline))
    missing = [name for name in NEEDED if name not in call]
    if missing or wants_image:
        why = f"its call takes no {missing[0]}" if missing else "it starts from a picture"
        raise ModelError(
            f"model '{reference}': {type(pipeline).__name__} makes no picture of text alone: {why}; "
            "name a text-to-image pipeline"
        )


def _may_do_without(pipeline: Any) -> bool:
    """Say whether a pipeline that takes a picture makes one of text alone, too: Flux 2, say."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING  # imports every pipeline: seconds

    return type(pipeline) in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()


def _options(settings: Diffusion, call: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Translate the recipe's settings into arguments; refuse one that this pipeline has no argument for."""
    wanted = {
        "height": settings.size,
        "width": settings.size,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "negative_prompt": settings.negative_prompt,
    }
    options = {name: value for name, value in wanted.items() if value is not None}
    for name, value in options.items():
        if name not in call:
            key = OPTION_OF.get(name, "size")
            raise ModelError(
                f"model '{reference}': modalities.image.diffusion.{key}: {value!r}, but this pipeline takes no "
                f"{name}; remove it or name another model"
            )
    return options
