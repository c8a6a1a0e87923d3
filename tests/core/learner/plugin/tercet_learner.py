"""A modality with a training task, for tests: a linear model learns to name the quadrant that a point lies in.

The base is right in the first half of the words and never says the others; records teach it all of them. Its recipe
can make a step's loss NaN, or kill the process in the middle of a step.
"""

import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tercet.errors import ModelError, SourceError
from tercet.modality import Modality, Needs, PayloadType, Planning, Resources, Shown
from tercet.models.reference import ResolvedModel
from tercet.randomness import digest
from tercet.recipe import Recipe, Section
from tercet.records import Columns, Item, Made, ModelUse
from tercet.store.shards import read_records
from tercet.train.checkpoints import reached
from tercet.train.loading import load
from tercet.train.mixing import is_watched, training_records
from tercet.train.task import Defaults, Example, Measured, OnUnits, Row, Suite

WORDS = ("north", "south", "aspirin", "ibuprofen")
MODEL = ModelUse("pkg:learner", "e" * 32, "MIT", "free")


class LearnerRecipe(Section):
    """How many points, a share of them held out, and how many differ: the others are rejected as duplicates."""

    points: int = 40
    distinct: int = 1000


@dataclass(frozen=True)
class LearnerPlan:
    section: LearnerRecipe

    def __len__(self) -> int:
        return self.section.points

    def item(self, index: int) -> Item:
        return Item("learner", "points", "test" if index % 4 == 3 else "train", {"number": index}, index)


def plan(section: LearnerRecipe, planning: Planning) -> LearnerPlan:
    return LearnerPlan(section)


payload = PayloadType(
    1,
    pa.schema([("point", pa.list_(pa.float64())), ("word", pa.string())]),
    {"word": {"_type": "Value", "dtype": "string"}},
    lambda columns: digest(json.dumps(columns["point"]), columns["word"]),
)


def point(number: int, word: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Give a point near the corner that belongs to a word."""
    found = np.random.default_rng(number).normal(0, 0.1, len(WORDS)).astype(np.float32)
    found[word] += 1
    return found


class Points:
    needs: ClassVar[Needs] = Needs()
    batch_size: ClassVar[int] = 8

    def __init__(self, section: LearnerRecipe, resources: Resources) -> None:
        del resources
        self.distinct = section.distinct

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        for item in items:
            number = item.spec["number"] % self.distinct
            word = number // 4 % len(WORDS)
            yield Made({"point": [float(x) for x in point(number, word)], "word": WORDS[word]}, MODEL)


def write_base(folder: Path, mark: float = 0.0) -> Path:
    """Write the base model: it knows the first two words."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weight = np.diag([3.0, 3.0, -3.0, -3.0]).astype(np.float32)
    weight[0, 2] = weight[1, 3] = 1.0 + mark
    save_file({"weight": weight}, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


class Data:
    replay: Sequence[Row] = ()
    padded_to = 0.0
    unit = "points"

    def __init__(self, points: list[tuple[list[float], int]], ids: list[str]) -> None:
        self.points = points
        self.rows: Sequence[Row] = [Row(1.0, 1, (name,)) for name in ids]

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> Any:
        del replay
        import torch

        x = torch.tensor([self.points[one][0] for one in rows])
        return x, torch.tensor([self.points[one][1] for one in rows])

    def describe(self) -> Mapping[str, Any]:
        return {"points": len(self.points)}


class Naming:
    """The task. Counters at class level let tests see what was asked of it."""

    defaults = Defaults(base="", targets="inner", learning_rate=0.1, replay=0.0, lora_scale=1.0, pipeline_tag="naming")
    primary_metric, other_metric, general_metric = "b-wer", "u-wer", "wer"
    false_trigger_metric = "false triggers"
    rates = ("recall",)
    settings: ClassVar[Mapping[str, Any]] = {"weights": (1, 1)}
    decoding: ClassVar[Mapping[str, Any]] = {"method": "greedy"}
    asked: ClassVar[list[tuple[str, int]]] = []  # (base or tuned, examples) of each predict
    kill_at: ClassVar[int] = -1  # step during which the process dies
    nan_at: ClassVar[int] = -1
    die_after: ClassVar[int] = -1  # answers after which the process dies

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def load_base(self, path: Path) -> Any:
        import torch
        from safetensors.torch import load_file

        class Names(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = torch.nn.Linear(len(WORDS), len(WORDS), bias=False)

            def forward(self, x: torch.Tensor) -> Any:
                return self.inner(x)

        model = Names()
        model.inner.load_state_dict(load_file(path / "model.safetensors"))
        return model

    def prepare(self, model: Any, run_dir: Path, seed: int, on_units: OnUnits) -> Data:
        del model
        self.step = reached(run_dir / "training").steps
        points, ids = [], []
        train, seed = self.recipe.sections.train, self.recipe.sections.seed
        records = read_records(run_dir, "learner", "train")
        for record in training_records(records, train, seed, lambda one: json.dumps(one.payload["point"])):
            points.append((record.payload["point"], WORDS.index(record.payload["word"])))
            ids.append(record.id)
            on_units(len(points), 60)
        return Data(points, ids)

    def is_watched(self, point: Any) -> bool:
        train = self.recipe.sections.train
        return is_watched(json.dumps(point), train.early_stop, self.recipe.sections.seed)

    def validation(self, run_dir: Path) -> list[Example]:
        records = read_records(run_dir, "learner", "train")
        watched = [record for record in records if self.is_watched(record.payload["point"])]
        return [
            Example(record.id, record.id, record.payload["word"], np.float32(record.payload["point"]))
            for record in watched
        ]

    def loss(self, model: Any, batch: Any) -> Any:
        import torch

        x, y = batch
        if self.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        self.step += 1
        return loss * float("nan") if self.step - 1 == self.nan_at else loss

    def suites(self, run_dir: Path) -> list[Suite]:
        held_out = [
            Example(
                record.id, f"s{number}", record.payload["word"], np.float32(record.payload["point"]), self.by(number)
            )
            for number, record in enumerate(read_records(run_dir, "learner", "test"))
        ]
        general = [Example(f"g{n}", f"g{n}", WORDS[n % 2], point(1000 + n, n % 2)) for n in range(12)]
        return [
            Suite("everyday", "general", "everyday words", general),
            Suite("held-out", "primary", "points never trained on", held_out),
        ]

    def by(self, number: int) -> dict[str, str]:
        return {"parity": ("even", "odd")[number % 2], "rare": "yes" if number < 3 else "no"}

    def read_input(self, text: str) -> Example:
        try:
            content = np.array([float(x) for x in text.split(",")], dtype=np.float32)
        except ValueError as error:
            raise SourceError(f"input {text!r}: not numbers with commas between ({error})") from error
        return Example(text, text, "", content)

    def answer(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[str]:
        import torch

        is_tuned = hasattr(model, "peft_config") and not model.base_model.model.inner.disable_adapters
        self.asked.append(("tuned" if is_tuned else "base", len(examples)))
        for done, example in enumerate(examples):
            if done == self.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            with torch.no_grad():
                yield WORDS[int(model(torch.from_numpy(example.content)[None]).argmax())]
            on_units(done + 1, len(examples))

    def measure(self, example: Example, prediction: str) -> Measured:
        is_wrong = float(prediction != example.reference)
        is_term = example.reference in WORDS[2:]
        counts = {"wer": (is_wrong, 1.0), "b-wer" if is_term else "u-wer": (is_wrong, 1.0)}
        if is_term:
            counts["recall"] = (1 - is_wrong, 1.0)
        counts["false triggers"] = (float(prediction in WORDS[2:] and not is_term), 1.0)
        return Measured(counts)

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        from safetensors.torch import save_file

        wrapped: Any = load(self.load_base(base), adapter)
        merged = wrapped.merge_and_unload()
        save_file(merged.state_dict(), out / "model.safetensors")
        (out / "config.json").write_text("{}")


class NamingBoth(Naming):
    """Shares work between the models, and refuses one base."""

    def answer_both(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterable[tuple[str, str]]:
        self.asked.append(("both", len(examples)))
        with model.disable_adapter():
            base = list(Naming.answer(self, model, examples, on_units))
        return zip(base, Naming.answer(self, model, examples, on_units), strict=True)

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        del run_dir
        if base.path.name == "judge":
            raise ModelError(f"train.base: {base.reference} judged this run's records; choose another")


def show(columns: Columns) -> Shown:
    return Shown(columns["word"], "<b>point</b>")


modality = Modality(
    name="learner",
    extra="learner",
    recipe_model="tercet_learner:LearnerRecipe",
    payload="tercet_learner:payload",
    plan="tercet_learner:plan",
    generators={"points": "tercet_learner:Points"},
    tasks={"naming": "tercet_learner:Naming", "naming-both": "tercet_learner:NamingBoth"},
    show="tercet_learner:show",
)
