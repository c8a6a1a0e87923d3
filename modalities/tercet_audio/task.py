"""The training task `speech-to-text`: Whisper learns the terms through LoRA, and keeps its ordinary English.

The adapter sits in the decoder: clips that machines spoke teach an encoder their sound, not the world's. So the frozen
encoder runs once over every training window, and once for base and tuned together in an evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercet.errors import UsageError
from tercet.machine import version_of
from tercet.models.reference import ResolvedModel
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.store.durable import file_digest
from tercet.store.shards import read_records
from tercet.train.mixing import is_watched, training_records
from tercet.train.task import Defaults, Example, Losses, Measured, OnUnits, Suite
from tercet_audio.metrics import TermErrors, normaliser
from tercet_audio.recipe import AudioRecipe
from tercet_audio.suites import made_examples, read_clip_file, read_suites, terms_of

if TYPE_CHECKING:
    import torch

    from tercet_audio.batches import WindowData
    from tercet_audio.distil import Distillation
    from tercet_audio.transcribe import Transcriber

DECODER = r".*decoder\.layers\.\d+\.((self_attn|encoder_attn)\.(q_proj|k_proj|v_proj|out_proj)|fc1|fc2)"
BATCH_SIZE = 8


class SpeechToText:
    """Fine-tunes Whisper on a run's clips and counts word errors on and off the recipe's terms."""

    defaults = Defaults(
        base="whisper-tune",
        targets=DECODER,
        learning_rate=1e-3,
        replay=0.5,
        lora_scale=1.0,
        pipeline_tag="automatic-speech-recognition",
    )
    primary_metric = "B-WER"
    other_metric = "U-WER"
    general_metric = "WER"
    false_trigger_metric = "false triggers"
    rates: tuple[str, ...] = ("term recall",)

    def __init__(self, recipe: Recipe) -> None:
        section = getattr(recipe.sections.modalities, "audio", None)
        if section is None:
            raise UsageError(f"{recipe.path}: train.task speech-to-text needs clips; fill modalities.audio")
        self.recipe = recipe
        self.section: AudioRecipe = section
        self.language = recipe.sections.language
        self._base_path = Path()  # set with the base
        self.settings: Mapping[str, Any] = section.training.model_dump(mode="json")
        self.decoding: Mapping[str, Any] = {
            "search": "greedy",
            "batch": BATCH_SIZE,
            "language": self.language,
            **{name: version_of(name) for name in ("torch", "transformers")},
        }

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Refuse the model that judged the clips, which would choose its own data, and one of another language."""
        del run_dir
        if self.language.split("-")[0] != "en" and not _is_multilingual(base.path):
            raise UsageError(
                f"train.base {base.reference} isn't known to be multilingual, and language is {self.language}; "
                "name a multilingual Whisper"
            )
        gate = self.section.gates.round_trip
        if gate is None:
            return
        from tercet.models import resolve

        judge = resolve(gate.judge, "whisper-judge", self.recipe.root)
        if judge.digest == base.digest or has_same_weights(judge.path, base.path):
            raise UsageError(
                f"train.base {base.reference} is also the judge of modalities.audio.gates.round_trip; name another one"
            )

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load Whisper in fp32, frozen."""
        from tercet_audio.transcribe import load_whisper

        self._base_path = path
        model: torch.nn.Module = load_whisper(path)
        return model.requires_grad_(False)

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> WindowData:
        """Pack the accepted clips into windows and run the frozen encoder over them once."""
        from tercet_audio.batches import Listener, prepare

        train = self.recipe.sections.train
        spoken = read_records(run_dir, "audio", "train")
        clips = training_records(spoken, train, self.recipe.sections.seed, lambda clip: str(clip.payload["phrase"]))
        is_mixed = train.replay != 0 and self.section.training.distil
        replay = read_records(run_dir, "audio", "replay") if is_mixed else ()
        listen = Listener(model, self._base_path, self.language)
        return prepare(listen, clips, replay, self.section.training, train, seed, on_units)

    def validation(self, run_dir: Path) -> list[Example]:
        """Read the training clips whose sentences are kept out of training to be watched."""
        watched = (clip for clip in read_records(run_dir, "audio", "train") if self._is_watched(clip))
        return list(made_examples(watched, "phrase"))

    def _is_watched(self, clip: Record) -> bool:
        train = self.recipe.sections.train
        return is_watched(clip.payload["phrase"], train.early_stop, self.recipe.sections.seed)

    def loss(self, model: torch.nn.Module, batch: Any) -> Losses:
        """Return cross-entropy on the terms' clips, and `distil` times the divergence from the base elsewhere."""
        from tercet_audio.distil import domain_loss

        own, weight = domain_loss(model, batch["own"]), self.section.training.distil
        return Losses(own, weight * self._distil(model, batch["replay"]) if batch["replay"] and weight else 0.0)

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read what the plan held out, general speech, and the recipe's own general folder."""
        return read_suites(self.recipe, run_dir)

    def read_input(self, text: str) -> Example:
        """Read a sound file."""
        return Example(text, text, "", read_clip_file(Path(text)))

    def answer(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[str]:
        """Transcribe."""
        hear = self._listener(model)
        for start, batch in _cut(examples):
            yield from hear.read(hear.encode(batch))[: len(examples) - start]
            on_units(min(start + BATCH_SIZE, len(examples)), len(examples))

    def answer_both(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[tuple[str, str]]:
        """Transcribe with base and tuned; where the adapter leaves the encoder alone, it hears once for both."""
        hear = self._listener(model)
        shares = not touches_encoder(name for name, _ in model.named_parameters())
        for start, batch in _cut(examples):
            encoded = hear.encode(batch)
            tuned = hear.read(encoded)
            with model.disable_adapter():
                base = hear.read(encoded if shares else hear.encode(batch))
            yield from list(zip(base, tuned, strict=True))[: len(examples) - start]
            on_units(min(start + BATCH_SIZE, len(examples)), len(examples))

    def measure(self, example: Example, prediction: str) -> Measured:
        """Count word errors on and off the terms, terms recalled, and terms heard where none was said."""
        found = self._count(example.reference, prediction)
        counts: dict[str, tuple[float, float]] = {
            "B-WER": (found.term_errors, found.term_words),
            "WER": (found.errors, found.words),
            "U-WER": (found.other_errors, found.other_words),
            "term recall": (found.recalled, found.terms),
            "false triggers": (found.false_triggers, found.words),
        }
        return Measured(counts)

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Write the merged model for transformers (safetensors) and for `whisper.load_model` (`whisper.pt`)."""
        from tercet_audio.export import export

        export(self.load_base(base), base, adapter, out)

    @cached_property
    def _distil(self) -> Distillation:
        from tercet_audio.distil import Distillation

        return Distillation()

    @cached_property
    def _count(self) -> TermErrors:
        return TermErrors(terms_of(self.recipe), normaliser(self.language))

    def _listener(self, model: Any) -> Transcriber:
        from tercet_audio.transcribe import Transcriber, load_processor

        return Transcriber(model, load_processor(self._base_path), self.language, BATCH_SIZE)


def has_same_weights(one: Path, other: Path) -> bool:
    """Say whether two model folders hold the same weights: a copy under another name has another digest."""
    files = [sorted(folder.glob("*.safetensors")) for folder in (one, other)]
    sizes = [[file.stat().st_size for file in some] for some in files]
    if not sizes[0] or sizes[0] != sizes[1]:
        return False
    return all(file_digest(a) == file_digest(b) for a, b in zip(*files, strict=True))


def _is_multilingual(base: Path) -> bool:
    try:
        held = json.loads((base / "generation_config.json").read_bytes())
        return bool(held.get("is_multilingual"))
    except (OSError, ValueError, AttributeError):
        return False


def touches_encoder(parameters: Iterable[str]) -> bool:
    """Say whether an adapter changes the encoder, by the names of a model's parameters."""
    return any("encoder." in name and "lora_" in name for name in parameters)


def _cut(examples: Sequence[Example]) -> Iterator[tuple[int, list[Any]]]:
    """Cut into batches of one fixed size: the last is filled up with silence, so that no transcript depends on it."""
    for start in range(0, len(examples), BATCH_SIZE):
        batch = [example.content for example in examples[start : start + BATCH_SIZE]]
        yield start, [*batch, *[np.zeros(16_000, np.float32)] * (BATCH_SIZE - len(batch))]
