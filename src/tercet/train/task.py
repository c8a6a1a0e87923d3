"""What a plug-in brings to be trained and judged: one small protocol, owned by the plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tercet import registry
from tercet.errors import RecipeError
from tercet.models.reference import ResolvedModel
from tercet.recipe import Recipe

if TYPE_CHECKING:
    import torch

OnUnits = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Defaults:
    """A task's measured defaults for what a recipe leaves open."""

    base: str  # kind of `auto` base model
    targets: str  # regular expression over the base's module names
    learning_rate: float
    replay: float
    lora_scale: float


@dataclass(frozen=True)
class Example:
    """One item that both models answer: `source` is the sentence it came from, `slices` where it is counted too.

    Answers are kept under a digest of `content`, which must be all that the model is given.
    """

    id: str
    source: str
    reference: str
    content: Any  # bytes, text, JSON values or numpy arrays: for speech, 16 kHz samples
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A frozen set of examples.

    `role` is "primary" (decides; a task has one such suite), "general" (must not get worse), or "other" (reported).
    """

    name: str
    role: str
    title: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Measured:
    """One example's errors and units per metric (`{"wer": (errors, words)}`); the same units whatever the answer."""

    counts: Mapping[str, tuple[float, float]]


class Batches(Protocol):
    """Training data, ready: `batch` depends on the step alone, so that a resumed run sees the same ones."""

    def batch(self, step: int, micro: int) -> Any:
        """Give one micro-batch."""

    def describe(self) -> Mapping[str, Any]:
        """Say what the data holds, for the log: JSON values."""


class Task(Protocol):
    """A training task. Constructed as `cls(recipe)`; imports torch only when asked to work.

    A task may also be a `PredictsBoth` or a `ChecksBase`.
    """

    defaults: Defaults
    primary_metric: str  # decides, on the primary suite
    other_metric: str  # must not get wholly worse on the primary suite
    general_metric: str  # bounds forgetting, on each general suite
    false_trigger_metric: str  # domain words where none was said; the decision bounds it per 100 units
    rates: tuple[str, ...]  # metrics that are reported plainly for each model, where more may be better (recall)
    settings: Mapping[str, Any]  # what training uses of the recipe outside `train`: JSON values, pinned
    decoding: Mapping[str, Any]  # how `predict` decodes: JSON values; answers are kept apart by them

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load the frozen base model."""

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> Batches:
        """Read the run's records and make the training batches."""

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the mean loss of one micro-batch."""

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read the frozen sets."""

    def read_input(self, text: str) -> Example:
        """Turn what a user gives `tercet try` (a path, or the content itself) into an example; raises SourceError."""

    def predict(
        self, base: Path, adapter: Path | None, examples: Sequence[Example], on_units: OnUnits
    ) -> Iterable[str]:
        """Answer every example in order with decoded output (never teacher-forced); `adapter` None is the base alone.

        A generator lets each answer be kept as it comes, so that a killed evaluation goes on from there.
        """

    def measure(self, example: Example, prediction: str) -> Measured:
        """Count one answer's errors."""

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Merge the adapter and write the model in the layouts that its users load."""


@runtime_checkable
class PredictsBoth(Protocol):
    """A task whose base and tuned models share work, such as an encoder that the adapter leaves alone."""

    def predict_both(
        self, base: Path, adapter: Path, examples: Sequence[Example], on_units: OnUnits
    ) -> Iterable[tuple[str, str]]:
        """Answer every example in order as (base, tuned); each must be what `predict` gives."""


@runtime_checkable
class ChecksBase(Protocol):
    """A task that refuses some base models: one that judged the run's data, say."""

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Raise a UsageError or ModelError when `base` must not be trained on this run."""


def find_task(recipe: Recipe) -> Task:
    """Construct the recipe's training task.

    Raises:
        RecipeError: the recipe has no `train`, or no installed modality brings the task.
    """
    modality = registry.modality(modality_of_task(recipe))
    task: Task = registry.load(modality.tasks[recipe.sections.train.task], modality.extra)(recipe)
    return task


def modality_of_task(recipe: Recipe) -> str:
    """Name the modality that brings the recipe's training task.

    Raises:
        RecipeError: the recipe has no `train`, or no installed modality brings the task.
    """
    train = recipe.sections.train
    if train is None:
        raise RecipeError(f"{recipe.path}: no `train` section; add one, e.g. train: {{task: speech-to-text}}")
    known = {task: modality.name for modality in registry.modalities().values() for task in modality.tasks}
    if train.task not in known:
        raise RecipeError(f"{recipe.path}: train.task: {train.task!r} is not one of {', '.join(sorted(known))}")
    return known[train.task]
