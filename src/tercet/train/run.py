"""Train a recipe's adapter on its run. The same call resumes by itself and says what it found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import StoreError, TercetError, UsageError
from tercet.files import write_atomically
from tercet.models import ResolvedModel
from tercet.pipeline.progress import OnProgress, Progress, silent
from tercet.pipeline.run import Interrupted, StopOnInterrupt, default_run_dir
from tercet.randomness import digest, seed_for
from tercet.recipe import Adapter, Recipe
from tercet.report.model_card import write_model_card
from tercet.store.durable import make_folder
from tercet.store.lock import RunLock
from tercet.train import adapters, checkpoints, loop
from tercet.train.base import resolve_base
from tercet.train.pin import check_pin, make_pin, read_pin, records_digest, resolved_settings, write_pin
from tercet.train.processes import Processes, is_main, num_processes
from tercet.train.stopping import Watch, spread_out
from tercet.train.task import ChecksBase, Task, Validates, WritesLayout, find_task, modality_of_task
from tercet.train.tracking import tracking

if TYPE_CHECKING:
    import torch

CARD_VERSION = 1
EVALUATION = "evaluation.json"
SCALES = "scales.json"  # what `tercet eval --scale a,b,c` found
KEPT = "kept_step"  # in an adapter's card: the step that it is of, where decoded answers chose an earlier one
DATA = "data.json"  # in the training's folder: what was trained on, in numbers


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
    training = _Training(recipe, task, run_dir, recipe.sections.seed if seed is None else seed)
    with ExitStack() as stack:
        if not is_main():  # the main process has the lock, writes, and speaks
            progress, announce = silent, lambda _: None
        else:
            stack.enter_context(RunLock(run_dir))
        stop = stack.enter_context(StopOnInterrupt())
        # a fresh start forgets a finished training, so whatever may stand in its way is found before
        processes = Processes(training.settings["precision"]) if fresh or num_processes() > 1 else None
        if processes and not processes.is_main:
            processes.wait()  # until the main process has found everything in order
        training.prepare(announce, fresh=fresh)
        if processes and processes.is_main:
            processes.wait()
        if weights := training.finished():
            announce(f"already trained: {training.adapter}")
            return TrainResult(training.adapter, training.reached.steps, weights, "already trained")
        return training.train(processes, threads, progress, announce, stop.is_set)


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
        self.pin: dict[str, Any]

    @property
    def reached(self) -> checkpoints.Reached:
        """How far the checkpoint is."""
        return checkpoints.reached(self.folder)

    def clear(self) -> None:
        """Remove a former training, and nothing else."""
        for folder in (self.folder, self.adapter):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (EVALUATION, SCALES):
            (self.run_dir / name).unlink(missing_ok=True)

    def prepare(self, announce: Callable[[str], None], *, fresh: bool) -> None:
        """Find the base, and hold what this training depends on against what it began from, or begin afresh."""
        records = records_digest(self.recipe, self.run_dir)
        pinned = "" if fresh else read_pin(self.folder).get("base", {}).get("reference", "")
        self.base = resolve_base(self.recipe, self.task, pinned, announce)
        if isinstance(self.task, ChecksBase):
            self.task.check_base(self.base, self.run_dir)
        self.pin = make_pin(self.settings, self.task, self.base, records, self.seed)
        if fresh and is_main():
            self.clear()
        if self.reached.steps or (self.adapter / adapters.CARD).exists():
            check_pin(self.folder, self.pin)
        self.card = self._card(self.pin)
        if not is_main():
            return
        for folder in (self.folder, self.adapter):
            make_folder(folder)
            for leftover in folder.glob(".*.tmp"):  # of a killed training; we hold the lock
                leftover.unlink(missing_ok=True)
        write_pin(self.folder, self.pin)

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
            weights = str(card.pop("weights", ""))
            card.pop(KEPT, None)
            if card != self.card:
                return ""
            adapters.check(self.adapter, self.base.digest)
        except TercetError:
            return ""  # torn or damaged: written again from the checkpoint
        return weights

    def train(
        self,
        processes: Processes | None,
        threads: int | None,
        progress: OnProgress,
        announce: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> TrainResult:
        """Train, or go on; then save the adapter."""
        use_threads(threads)
        processes = processes or Processes(self.settings["precision"])
        reached = self.reached
        resumed = f"resuming: step {reached.steps} of {self.steps}" if reached.steps else ""
        if resumed:
            announce(resumed)
        model = self._attach(processes)
        if reached.is_over or reached.steps >= self.steps:
            loop.finish(model, self.folder, digest(self.pin))
            done = reached.steps
        else:
            trained = self._loop(model, processes, progress, announce, is_stopping)
            done = trained.steps
            if not trained.is_over:
                raise Interrupted(
                    f"interrupted: step {done} of {self.steps} is kept; the same command goes on from there"
                )
        return TrainResult(self.adapter, done, self._save(model, processes), resumed)

    def _save(self, model: torch.nn.Module, processes: Processes) -> str:
        weights = ""
        if processes.is_main:
            card = {**self.card, KEPT: self.reached.best}
            weights = adapters.save(model, self.adapter, card, self.settings["lora_scale"], self._complete)
        return str(processes.share(weights))

    def _complete(self, card: Mapping[str, Any]) -> None:
        """Write what belongs to an adapter beside its weights."""
        _forget_evaluation(self.run_dir, card["weights"])
        tag = self.task.defaults.pipeline_tag
        write_model_card(self.run_dir, self.adapter, card, modality_of_task(self.recipe), tag)
        if isinstance(self.task, WritesLayout):
            self.task.write_layout(self.adapter)

    def _attach(self, processes: Processes) -> torch.nn.Module:
        import torch

        model = self.task.load_base(self.base.path)
        if processes.dtype:
            model.to(processes.dtype)  # the frozen base; the adapter's own parameters stay in fp32
        torch.manual_seed(seed_for(self.seed, "", "adapter"))  # of the first weights
        adapter = Adapter(**self.settings["adapter"])
        model = adapters.attach(model, adapter, self.task.defaults.targets, self.settings["kernels"])
        if self.settings["activation_checkpointing"]:
            adapters.checkpoint_activations(model)
        return model

    def _loop(
        self,
        model: torch.nn.Module,
        processes: Processes,
        progress: OnProgress,
        announce: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> loop.Trained:
        def on_units(done: int, total: int) -> None:
            if is_stopping():
                raise Interrupted("interrupted while preparing the batches: the same command starts them again")
            progress(Progress("train: prepare", done, total))

        def on_step(done: int, loss: float, note: str) -> None:
            progress(Progress("train", done, self.steps, f"loss {loss:.3f}, {note}"))

        with processes.autocast():
            data = self.task.prepare(model, self.run_dir, self.seed, on_units)
        held = dict(data.describe())
        said = [f"{name.replace('_', ' ')} {value}" for name, value in held.items() if value not in ([], {}, "", None)]
        announce(f"training data: {', '.join(said)}")
        if processes.is_main:
            write_atomically(self.folder / DATA, json.dumps(held, indent=1, default=str).encode())
        names = {field.name for field in fields(loop.LoopSettings)} & set(self.settings)
        settings = loop.LoopSettings(
            **{name: self.settings[name] for name in names}, seed=self.seed, pin=digest(self.pin)
        )
        name = f"{self.recipe.name}-{digest(self.pin)[:8]}"
        tracker = self.settings["tracker"] if processes.is_main else "none"
        with tracking(tracker, "tercet", name, self.pin) as track:
            callbacks = loop.Callbacks(on_step, is_stopping, announce, track)
            return loop.train(model, self.task, data, settings, self.folder, callbacks, processes, self._watch())

    def _watch(self) -> Watch | None:
        early_stop = self.recipe.sections.train.early_stop
        if early_stop is None:
            return None
        if not isinstance(self.task, Validates):
            raise UsageError(f"train.early_stop: {self.settings['task']} can't decode while it trains; leave it out")
        return Watch(self.task, early_stop, spread_out(self.task.validation(self.run_dir), early_stop))


def use_threads(asked: int | None) -> None:
    """Give torch the threads that were asked for, else all cores; OMP_NUM_THREADS is the user's own word."""
    import torch

    if asked is not None:
        torch.set_num_threads(asked)
    elif not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def _forget_evaluation(run_dir: Path, weights: str) -> None:
    """Remove what was found out about an adapter that is no longer there."""
    try:
        is_ours = json.loads((run_dir / EVALUATION).read_bytes())["adapter"]["digest"] == weights
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        for name in (EVALUATION, SCALES):
            (run_dir / name).unlink(missing_ok=True)
