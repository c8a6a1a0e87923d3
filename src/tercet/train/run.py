"""Train a recipe's adapter on its run. The same call resumes by itself and says what it found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import StoreError, TercetError
from tercet.models import ResolvedModel
from tercet.pipeline.progress import OnProgress, Progress, silent
from tercet.pipeline.run import Interrupted, StopOnInterrupt, default_run_dir
from tercet.randomness import seed_for
from tercet.recipe import Adapter, Recipe
from tercet.store.durable import make_folder
from tercet.store.lock import RunLock
from tercet.train import adapters, loop
from tercet.train.base import resolve_base
from tercet.train.pin import check_pin, make_pin, read_pin, records_digest, resolved_settings, write_pin
from tercet.train.task import ChecksBase, Task, find_task

if TYPE_CHECKING:
    import torch

CARD_VERSION = 1
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class TrainResult:
    """Where the adapter lies, the steps it took, the digest of its weights, and what the call found."""

    adapter: Path
    steps: int
    digest: str
    resumed: str


def adapter_folder(recipe: Recipe, run_dir: Path) -> Path:
    """Give the folder of the recipe's adapter in a run."""
    return run_dir / "adapters" / recipe.name


def train_recipe(
    recipe: Recipe,
    run_dir: Path | None = None,
    *,
    fresh: bool = False,
    seed: int | None = None,
    threads: int | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Train the adapter of `recipe` on the records in `run_dir` (default: `runs/<name>` beside the recipe).

    `seed` is the recipe's unless given. `threads` is torch's number of threads: all cores unless OMP_NUM_THREADS says
    otherwise. A stopped training goes on from its checkpoint to the same bytes; a finished one returns at once.

    Raises:
        StoreError: there are no records, the run is locked, or a former training here began from something else.
        ModelError: the base can't be found, or the task refuses it.
        TrainingFailed: the loss became NaN; the last checkpoint stays.
        Interrupted: Ctrl-C; the checkpoint is written.
    """
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    if not run_dir.is_dir():
        raise StoreError(f"{run_dir}: no finished run here; run first: tercet run {recipe.path}")
    with ExitStack() as stack:
        stack.enter_context(RunLock(run_dir))
        stop = stack.enter_context(StopOnInterrupt())
        training = _Training(recipe, task, run_dir, recipe.sections.seed if seed is None else seed)
        if fresh:
            training.clear()
        training.prepare(announce)
        if digest := training.finished():
            announce(f"already trained: {training.adapter}")
            return TrainResult(training.adapter, training.steps, digest, "already trained")
        return training.train(threads, progress, announce, stop.is_set)


class _Training:
    """One training: what it depends on, and its folders."""

    def __init__(self, recipe: Recipe, task: Task, run_dir: Path, seed: int) -> None:
        self.recipe, self.task, self.run_dir, self.seed = recipe, task, run_dir, seed
        self.folder = run_dir / "training"
        self.adapter = adapter_folder(recipe, run_dir)
        self.settings = resolved_settings(recipe, task)
        self.steps: int = self.settings["steps"]
        self.base: ResolvedModel
        self.card: dict[str, Any]

    def clear(self) -> None:
        """Remove a former training, and nothing else."""
        for folder in (self.folder, self.adapter):
            shutil.rmtree(folder, ignore_errors=True)
        (self.run_dir / EVALUATION).unlink(missing_ok=True)

    def prepare(self, announce: Callable[[str], None]) -> None:
        """Find the base, and hold what this training depends on against what it began from."""
        records = records_digest(self.recipe, self.run_dir)
        pinned = read_pin(self.folder).get("base", {}).get("reference", "")
        self.base = resolve_base(self.recipe, self.task, pinned, announce)
        if isinstance(self.task, ChecksBase):
            self.task.check_base(self.base, self.run_dir)
        pin = make_pin(self.settings, self.task, self.base, records, self.seed)
        if loop.steps_done(self.folder) or (self.adapter / adapters.CARD).exists():
            check_pin(self.folder, pin)
        for folder in (self.folder, self.adapter):
            make_folder(folder)
            for leftover in folder.glob(".*.tmp"):  # of a killed training; we hold the lock
                leftover.unlink(missing_ok=True)
        write_pin(self.folder, pin)
        self.card = self._card(pin)

    def _card(self, pin: Mapping[str, Any]) -> dict[str, Any]:
        from tercet import __version__

        return {
            "version": CARD_VERSION,
            "task": pin["task"],
            "base": self.base.reference,
            "base_digest": self.base.digest,
            "base_licence": self.base.licence,
            "recipe": self.recipe.digest,
            "records": pin["records"],
            "seed": self.seed,
            "steps": self.steps,
            "scale": self.settings["lora_scale"],
            "train": pin["train"],
            "settings": pin["settings"],
            "tercet": __version__,
        }

    def finished(self) -> str:
        """Return the digest of the finished adapter, whole and of this training; empty when there is work to do."""
        if not (self.adapter / adapters.CARD).exists():
            return ""
        try:
            card = adapters.read_card(self.adapter)
            digest = str(card.pop("weights", ""))
            if card != self.card:
                return ""
            adapters.check(self.adapter, self.base.digest)
        except TercetError:
            return ""  # torn or damaged: written again from the checkpoint
        return digest

    def train(
        self,
        threads: int | None,
        progress: OnProgress,
        announce: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> TrainResult:
        """Train, or go on; then save the adapter."""
        use_threads(threads)
        done = loop.steps_done(self.folder)
        resumed = f"resuming: step {done} of {self.steps}" if done else ""
        if resumed:
            announce(resumed)
        model = self._attach()
        if done < self.steps:
            done = self._loop(model, progress, is_stopping)
        else:
            loop.restore(model, self.folder)
        if done < self.steps:
            raise Interrupted(f"interrupted: step {done} of {self.steps} is kept; the same command goes on from there")
        digest = adapters.save(model, self.adapter, self.card, self.settings["lora_scale"])
        _forget_evaluation(self.run_dir, digest)
        return TrainResult(self.adapter, done, digest, resumed)

    def _attach(self) -> torch.nn.Module:
        import torch

        model = self.task.load_base(self.base.path)
        torch.manual_seed(seed_for(self.seed, "", "adapter"))  # of the first weights
        return adapters.attach(model, Adapter(**self.settings["adapter"]), self.task.defaults.targets)

    def _loop(self, model: torch.nn.Module, progress: OnProgress, is_stopping: Callable[[], bool]) -> int:
        def on_units(done: int, total: int) -> None:
            if is_stopping():
                raise Interrupted("interrupted while preparing the batches: the same command starts them again")
            progress(Progress("train: prepare", done, total))

        def on_step(done: int, loss: float) -> None:
            progress(Progress("train", done, self.steps, f"loss {loss:.3f}"))

        batches = self.task.prepare(model, self.run_dir, self.seed, on_units)
        names = ("steps", "learning_rate", "warmup_fraction", "accumulate", "clip_norm", "checkpoint_every")
        settings = loop.LoopSettings(**{name: self.settings[name] for name in names}, seed=self.seed)
        return loop.train(model, self.task, batches, settings, self.folder, on_step, is_stopping)


def use_threads(asked: int | None) -> None:
    """Give torch the threads that were asked for, else all cores; OMP_NUM_THREADS is the user's own word."""
    import torch

    if asked is not None:
        torch.set_num_threads(asked)
    elif not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def _forget_evaluation(run_dir: Path, digest: str) -> None:
    """Remove the evaluation of an adapter that is no longer there."""
    path = run_dir / EVALUATION
    try:
        is_ours = json.loads(path.read_bytes())["adapter"]["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        path.unlink(missing_ok=True)
