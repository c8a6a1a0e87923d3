"""The training task `vision-language`: a model of pictures and text learns what a brand calls its colours and things.

The adapter sits in the language model and in the projector before it. The vision tower stays as it is (LLaVA,
arXiv:2310.03744): it sees, and only the words for what it sees are new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.compat import prepare_torchaudio
from tercet.errors import ModelError, SourceError
from tercet.machine import version_of
from tercet.modality import Shown
from tercet.models import ResolvedModel
from tercet.recipe import Recipe
from tercet.train.task import ONE_IN_A_HUNDRED, Defaults, Example, Measured, OnUnits, Suite
from tercet_image.answers import ANSWER_ERRORS, FALSE_NAMES, KNOWN_ERRORS, count_answer
from tercet_image.general_scenes import new_names
from tercet_image.photo import BadPicture, read_picture
from tercet_image.picture_task import PictureTask, written
from tercet_image.show import show_pictures
from tercet_image.vl_data import DESCRIBE, AskedData, described, prepare
from tercet_image.vl_reader import Reader, base_of, open_picture
from tercet_image.vl_suites import held_out_examples, read_suites, record_examples

if TYPE_CHECKING:
    import torch

LANGUAGE = (
    r"(?!.*(vision_tower|vision_model|visual)\.).*"
    r"(self_attn\.(q_proj|k_proj|v_proj|o_proj)|mlp\.(gate_proj|up_proj|down_proj)"
    r"|multi_modal_projector\.linear_\d|connector\.modality_projection\.proj)"
)
BATCH_SIZE = 32
MOST_TOKENS = 32  # of an answer; a colour's name may take four words of several tokens each
PAD_TO = 16  # tokens: prompts of much the same length have the same shape
PROBE_TOKENS = 8


class VisionLanguage(PictureTask):
    """Fine-tunes a vision-language model on a run's questions; what it answers must be the exact words."""

    defaults = Defaults(
        base="bundled:image/scenes-vlm",
        targets=LANGUAGE,
        learning_rate=1e-3,
        replay=0.5,
        lora_scale=1.0,
        pipeline_tag="image-text-to-text",
        false_triggers=ONE_IN_A_HUNDRED,
    )
    primary_metric = ANSWER_ERRORS
    other_metric = KNOWN_ERRORS
    general_metric = ANSWER_ERRORS
    false_trigger_metric = FALSE_NAMES
    rates: tuple[str, ...] = ()

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.settings: Mapping[str, Any] = {"describe": self.section.training.describe}
        self.decoding: Mapping[str, Any] = {
            "search": "greedy",
            "batch": BATCH_SIZE,
            "most_tokens": MOST_TOKENS,
            **{name: version_of(name) for name in ("torch", "transformers")},
        }
        self._base_path = Path()  # set with the base

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Refuse to train what no question could judge."""
        del base
        held_out_examples(self.section, run_dir)

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load an image-and-text model in fp32, frozen.

        Raises:
            ModelError: it can't be loaded or asked, or its logits are more than its output layer gives.
        """
        prepare_torchaudio()
        import torch
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path}: can't be loaded as a model of pictures and text: {str(error)[:200]}") from error
        self._base_path = path
        model = model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        _check_output_layer(model, path)
        Reader(model, path).try_asking()
        found: torch.nn.Module = model
        return found

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> AskedData:
        """Turn the training pictures into rows, and draw general scenes as many as replay may take."""
        records, describe = self._trained(run_dir), self.section.training.describe
        general = (described(key, payload, describe=describe) for key, payload in self._replayed(len(records)))
        train = self.recipe.sections.train
        return prepare(self._reader(model), records, general, train, seed, on_units, describe=describe)

    def validation(self, run_dir: Path) -> list[Example]:
        """Read the questions about the training pictures that are kept out of training to be watched."""
        return list(record_examples(self._watched(run_dir)))

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return cross-entropy over the answers' tokens; the output layer runs where they are predicted alone."""
        import torch

        base: Any = base_of(model)
        hidden_BTD = base.base_model(**batch["inputs"], use_cache=False).last_hidden_state
        logits_NV = base.get_output_embeddings()(hidden_BTD.flatten(0, 1)[batch["sources_N"]])
        return torch.nn.functional.cross_entropy(logits_NV.float(), batch["targets_N"])

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read the held-out questions, with the picture and without, and those about general scenes."""
        return read_suites(self.recipe, self.section, run_dir)

    def read_input(self, text: str) -> Example:
        """Take `picture.png: What colour is the star?`; without a question, the picture is to be described."""
        name, _, question = text.partition(": ")
        try:
            picture = read_picture(Path(name).read_bytes(), self.section.max_example_side)
        except BadPicture as error:
            raise SourceError(f"{name[:80]}: {error}") from error
        except (OSError, ValueError) as error:
            raise SourceError(f"{name[:80]}: no picture that can be read; write: picture.png: a question") from error
        return Example(text, text, "", {"picture": picture, "question": question.strip() or DESCRIBE})

    def answer(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[str]:
        """Answer greedily, in batches of one size; a question that leaves no room is told so, and not cut."""
        reader = self._reader(model)
        for start in range(0, len(examples), BATCH_SIZE):
            some = examples[start : start + BATCH_SIZE]
            filled = [*some, *[some[-1]] * (BATCH_SIZE - len(some))]
            pictures = [open_picture(one.content["picture"], one.id) for one in filled]
            questions = [one.content["question"] for one in filled]
            sizes = [reader.size(*asked) for asked in zip(pictures, questions, strict=True)]
            has_room = [size + MOST_TOKENS <= reader.context for size in sizes]
            kept = [question if fits else "" for question, fits in zip(questions, has_room, strict=True)]
            inputs = reader.ask(pictures, kept, PAD_TO)
            written = reader.model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
            said = reader.read(written[:, inputs["input_ids"].shape[1] :])
            for answer, size, fits in list(zip(said, sizes, has_room, strict=True))[: len(some)]:
                yield answer if fits else f"(no answer: {size} tokens leave no room in {reader.context})"
            on_units(start + len(some), len(examples))

    def measure(self, example: Example, prediction: str) -> Measured:
        """Count a wrong answer, and a new name where none belongs."""
        return Measured(count_answer(example.content["question"], example.reference, prediction, self._names))

    def show_example(self, example: Example) -> Shown:
        """Show the picture, the question and its answer."""
        question, picture = example.content["question"], example.content["picture"]
        return show_pictures([picture], f"{question} {example.reference}".strip())

    def show_answer(self, answer: str) -> Shown:
        """Show the words."""
        return show_pictures([], answer)

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Write the merged model and its processor as transformers loads them.

        Raises:
            ModelError: the adapter belongs to another base, or is damaged.
            StoreError: `out` can't be written.
        """
        from tercet.train.loading import load

        model = self.load_base(base)
        processor = self._reader(model).processor
        wrapped: Any = load(model, adapter)
        with written(out):
            wrapped.merge_and_unload().save_pretrained(out)
            processor.save_pretrained(out)

    @cached_property
    def _names(self) -> list[str]:
        return new_names(self.section)

    def _reader(self, model: Any) -> Reader:
        return Reader(base_of(model), self._base_path)


def _check_output_layer(model: Any, path: Path) -> None:
    """Refuse a model that does more to its logits than its output layer: the loss runs trunk and layer."""
    import torch

    ids_1T = torch.arange(PROBE_TOKENS, device=model.device)[None]
    with torch.no_grad():
        trunk = model.base_model(input_ids=ids_1T, use_cache=False)
        hidden = getattr(trunk, "last_hidden_state", None)
        ours = None if hidden is None else model.get_output_embeddings()(hidden)
        its = model(input_ids=ids_1T, use_cache=False).logits
    if ours is None or not torch.allclose(ours, its, atol=1e-4, rtol=1e-4):
        raise ModelError(
            f"{path}: {type(model).__name__} changes its logits after the output layer, which vision-language can't "
            "train; name another train.base"
        )
