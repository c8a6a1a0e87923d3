"""What a plug-in brings to be trained and judged: one small protocol, owned by the plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tercet import registry
from tercet.errors import RecipeError, UsageError
from tercet.modality import Shown
from tercet.models.reference import ResolvedModel
from tercet.recipe import Recipe

if TYPE_CHECKING:
    import torch

# where a unit is a whole answer: as often as 0.1 per 100 words are in sentences of ten words
ONE_IN_A_HUNDRED = 1.0

OnUnits = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Defaults:
    """A task's measured defaults for what a recipe leaves open."""

    base: str  # kind of `auto` base model
    targets: str  # regular expression over the base's module names
    learning_rate: float
    replay: float
    lora_scale: float
    pipeline_tag: str = ""  # what the Hub calls such models: automatic-speech-recognition, say
    false_triggers: float = 0.1  # what `promote` allows of that metric, per 100 units; ONE_IN_A_HUNDRED for answers


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


def rate(measured: Sequence[Measured], metric: str) -> float | None:
    """Give a metric's sum per 100 units; None without units."""
    found = [one.counts[metric] for one in measured if metric in one.counts]
    units = sum(units for _, units in found)
    return 100 * sum(errors for errors, _ in found) / units if units else None


@dataclass(frozen=True)
class Row:
    """One thing to train on, known before it is a tensor: a packed window, a dialog, a picture with its question.

    `size` is what batches are measured and padded in (tokens, seconds), `units` what its loss is a mean over (labels
    that count), `records` the ids of the records in it: they are named when a loss is no number.
    """

    size: float
    units: int = 1
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Losses:
    """A loss of two terms, each a mean over its own units: that of the domain's rows, and that of replay's, weighed."""

    own: torch.Tensor
    replay: torch.Tensor | float = 0.0


class TrainingData(Protocol):
    """A task's training data, ready; which rows make a step is the core's choice (`order.py`)."""

    rows: Sequence[Row]  # of the domain
    replay: Sequence[Row]  # of general examples, mixed in by `train.replay`; may be empty
    padded_to: float  # the size that every row is padded to; 0: to the longest of its batch
    unit: str  # what sizes are measured in, in a word: tokens, s

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> Any:
        """Make one micro-batch of rows by number, on the model's device; numbers alone decide what it holds."""

    def describe(self) -> Mapping[str, Any]:
        """Say what the data holds, for the log: JSON values."""


class Task(Protocol):
    """A training task. Constructed as `cls(recipe)`; imports torch only when asked to work.

    A task may also be an `AnswersBoth`, a `ChecksBase`, a `Shows`, a `Validates` or a `WritesLayout`.
    """

    defaults: Defaults
    primary_metric: str  # decides, on the primary suite
    other_metric: str  # must not get wholly worse on the primary suite
    general_metric: str  # bounds forgetting, on each general suite
    false_trigger_metric: str  # domain words where none was said; `defaults.false_triggers` bounds it
    rates: tuple[str, ...]  # metrics that are reported plainly for each model, where more may be better (recall)
    settings: Mapping[str, Any]  # what training uses of the recipe outside `train`: JSON values, pinned
    decoding: Mapping[str, Any]  # how `answer` decodes: JSON values; answers are kept apart by them

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load the frozen base model, on this process's device."""

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> TrainingData:
        """Read the run's records and make the training data."""

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor | Losses:
        """Return the loss of one micro-batch: a mean over the units of all its rows, or one of each kind of row.

        So a step's loss doesn't depend on how the step is cut, by memory or by the number of processes.
        """

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read the frozen sets."""

    def read_input(self, text: str) -> Example:
        """Turn what a user gives `tercet try` (a path, or the content itself) into an example; raises SourceError."""

    def answer(self, model: torch.nn.Module, examples: Sequence[Example], on_units: OnUnits) -> Iterable[str]:
        """Answer every example in order with decoded output (never teacher-forced).

        `model` is what `load_base` gave, bare or with an adapter on it. A generator lets each answer be kept as it
        comes, so that a killed evaluation goes on from there.
        """

    def measure(self, example: Example, prediction: str) -> Measured:
        """Count one answer's errors."""

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Merge the adapter and write the model in the layouts that its users load."""


@runtime_checkable
class AnswersBoth(Protocol):
    """A task whose base and tuned models share work, such as an encoder that the adapter leaves alone."""

    def answer_both(
        self, model: torch.nn.Module, examples: Sequence[Example], on_units: OnUnits
    ) -> Iterable[tuple[str, str]]:
        """Answer every example in order as (base, tuned); each must be what `answer` gives."""


@runtime_checkable
class ChecksBase(Protocol):
    """A task that refuses some base models: one that judged the run's data, say."""

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Raise a UsageError or ModelError when `base` must not be trained on this run."""


@runtime_checkable
class Shows(Protocol):
    """A task whose examples and answers are pictures, or turns of a dialog: what text alone shows badly."""

    def show_example(self, example: Example) -> Shown:
        """Show what both models were given, and the right answer where there is one."""

    def show_answer(self, answer: str) -> Shown:
        """Show what a model answered."""


@runtime_checkable
class Validates(Protocol):
    """A task that can stop early: it keeps a share of the training records out of training to watch."""

    def validation(self, run_dir: Path) -> Sequence[Example]:
        """Read the examples that `train.early_stop` is decided on; `prepare` leaves their records out."""


@runtime_checkable
class WritesLayout(Protocol):
    """A task whose users load adapters by another library than PEFT: diffusers, say."""

    def write_layout(self, adapter: Path) -> None:
        """Write the adapter in that library's layout beside PEFT's files."""


def own_general(recipe: Recipe, modality: str) -> Path | None:
    """Find the general examples of the user's that `evaluate.general` names; None where it names none.

    Raises:
        UsageError: they are in `sources.examples` too, and so trained on.
    """
    named = recipe.sections.evaluate.general
    if not named:
        return None
    path: Path = recipe.root / named
    for source in recipe.sections.sources.examples:
        if source.modality == modality and (recipe.root / source.path).resolve() == path.resolve():
            raise UsageError(
                f"evaluate.general: {path} is also in sources.examples, so it is trained on; name another one"
            )
    return path


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
