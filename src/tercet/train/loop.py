"""The training loop. Each step depends on its number alone, so a resumed run is the same run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.errors import TercetError
from tercet.randomness import seed_for
from tercet.train import checkpoints
from tercet.train.adapters import trainable
from tercet.train.log import Log, memory_gib
from tercet.train.order import Order, Part
from tercet.train.processes import Processes
from tercet.train.stopping import Watch
from tercet.train.task import Losses, Row, Task, TrainingData
from tercet.train.tracking import Track

if TYPE_CHECKING:
    import torch

MOST_HALVINGS = 10
MOST_NAMED = 8  # record ids in the message of a loss that is no number


class TrainingFailed(TercetError):
    """The loss or its gradient became NaN or infinite, or one row alone doesn't fit into memory."""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs of a recipe; `pin` names all that the training depends on."""

    steps: int
    learning_rate: float
    seed: int
    schedule: str = "cosine"
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    micro_batch: int = 2
    budget: float | None = None
    accumulate: int = 1
    replay: float = 0.0
    clip_norm: float = 1.0
    checkpoint_every: int = 50
    keep_every: int | None = None
    pin: str = ""

    def rate(self, step: int) -> float:
        """Give the learning rate of a step: linear warm-up, then by the schedule to zero, or constant."""
        warmup = max(1, round(self.warmup_fraction * self.steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        gone = (step - warmup) / max(1, self.steps - warmup)
        falls = {"cosine": 0.5 * (1 + math.cos(math.pi * gone)), "linear": 1 - gone, "constant": 1.0}
        return self.learning_rate * falls[self.schedule]


@dataclass(frozen=True)
class Callbacks:
    """What the loop tells, and what it asks, while it runs."""

    on_step: Callable[[int, float, str], None] = lambda *_: None  # (steps done, loss, what else to show)
    is_stopping: Callable[[], bool] = lambda: False
    announce: Callable[[str], None] = lambda _: None
    track: Track | None = None  # takes each row of the log


@dataclass(frozen=True)
class Trained:
    """How a call of `train` ended: the steps done, and whether there are none left to do."""

    steps: int
    is_over: bool


def train(
    model: torch.nn.Module,
    task: Task,
    data: TrainingData,
    settings: LoopSettings,
    folder: Path,
    callbacks: Callbacks = Callbacks(),
    processes: Processes | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train the adapter parameters of `model`; goes on from a checkpoint in `folder`, and leaves `model` ready to save.

    Raises:
        TrainingFailed: the loss isn't finite (the last checkpoint stays), or memory doesn't hold one row.
        CorruptError: the checkpoint is damaged, or another training's.
    """
    return _Loop(model, task, data, settings, folder, callbacks, processes or Processes("fp32"), watch).run()


class _Loop:
    """The state of one training."""

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        data: TrainingData,
        settings: LoopSettings,
        folder: Path,
        callbacks: Callbacks,
        processes: Processes,
        watch: Watch | None,
    ) -> None:
        import torch

        torch.set_grad_enabled(True)  # a generator that yielded inside no_grad may have left it off
        self.model, self.task, self.data, self.settings = model, task, data, settings
        self.folder, self.callbacks, self.processes, self.watch = folder, callbacks, processes, watch
        self.parameters = trainable(model)
        self.optimiser = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.order = Order(
            data,
            micro_batch=settings.micro_batch,
            budget=settings.budget,
            accumulate=settings.accumulate,
            replay=settings.replay,
            seed=settings.seed,
        )
        if settings.replay and not data.replay:
            callbacks.announce(f"note: train.replay is {settings.replay:g}, and there is no general example to mix in")
        self.done, self.halvings, self.is_over = 0, 0, False
        self._restore()
        self.log = Log(folder, self.done, callbacks.track, is_main=processes.is_main)

    def run(self) -> Trained:
        """Do the steps that are left, or as many as there is time for."""
        self.model.train()
        while not self._is_finished():
            loss, note = self._step()
            self.callbacks.on_step(self.done, loss, note)
            stops = self.processes.any(self.callbacks.is_stopping())  # asked once: a step that ends the loop is kept
            self._look()
            if self._is_finished() or stops or self.done % self.settings.checkpoint_every == 0 or self._is_kept():
                self._checkpoint()
            if stops:
                break
        self.model.eval()
        if self._is_finished() and self.watch is not None:
            put(self.parameters, self.watch.best)
            self.callbacks.announce(
                f"step {self.done}: the adapter of step {self.watch.best_step} is kept "
                f"({self.task.primary_metric} {self.watch.best_score:.2f} on what was watched)"
            )
        return Trained(self.done, self._is_finished())

    def _is_finished(self) -> bool:
        return self.is_over or self.done >= self.settings.steps

    def _step(self) -> tuple[float, str]:
        """Do one optimiser step over all its micro-batches."""
        started = time.monotonic()
        step = self.done
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(step)
        while True:
            parts = self.order.step(step, self.processes.count, self.halvings)
            loss = self._gradients(step, parts)
            if loss is not None:
                break
            self._halve(step, parts)
        norm = self._norm(step, parts)
        self.processes.step(self.optimiser)
        self.done = step + 1
        size, padding = self.order.padding(parts)
        seconds = time.monotonic() - started
        row = {
            "step": self.done, "loss": loss, "norm": norm, "rate": self.settings.rate(step),
            "size": size, "padding": round(padding, 4), "seconds": round(seconds, 3), "memory_gib": memory_gib(),
        }  # fmt: skip
        self.log.write(row)
        return loss, f"{size / seconds:,.0f} {self.data.unit}/s, {row['memory_gib']:.1f} GiB"

    def _gradients(self, step: int, parts: Sequence[Part]) -> float | None:
        """Sum the gradients of a step's micro-batches over all processes; None where memory didn't hold one."""
        import torch

        total, is_full = 0.0, False
        for number in range(self.processes.rank, len(parts), self.processes.count):
            torch.manual_seed(seed_for(self.settings.seed, "", f"dropout/{number}" if number else "dropout", step))
            try:
                total += self._part(step, parts[number])
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not is_out_of_memory(error):
                    raise
                is_full = True
                break
        if self.processes.any(is_full):
            self.optimiser.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        self.processes.sum_gradients(self.parameters.values())
        return self.processes.sum([total])[0]

    def _part(self, step: int, part: Part) -> float:
        """Add one micro-batch's gradient; return its share of the loss."""
        with self.processes.autocast():
            found = self.task.loss(self.model, self.data.collate(part.rows, part.replay))
            if isinstance(found, Losses):
                loss = found.own * part.own_share + found.replay * part.replay_share
            else:
                loss = found * part.share
        value = float(loss.detach())
        if not math.isfinite(value):
            self._fail(step, "loss", value, [part])
        self.processes.backward(loss)
        return value

    def _halve(self, step: int, parts: Sequence[Part]) -> None:
        """Answer a full memory: from here on every micro-batch is cut in two once more."""
        largest = max(len(part.rows) for part in parts)
        if largest == 1 or self.halvings == MOST_HALVINGS:
            raise TrainingFailed(
                f"step {step}: one row of {max(self._sizes(parts)):,.0f} {self.data.unit} doesn't fit into memory; set "
                "train.activation_checkpointing: true or a lower precision and start again with: tercet train --fresh; "
                "or leave out the longest records"
            )
        self.halvings += 1
        self.callbacks.announce(
            f"step {step}: out of memory; micro-batches have {-(-largest // 2)} rows from here on, not {largest}"
        )

    def _sizes(self, parts: Sequence[Part]) -> list[float]:
        return [self.data.rows[at].size for part in parts for at in part.rows]

    def _norm(self, step: int, parts: Sequence[Part]) -> float:
        """Clip the gradient; return the norm it had."""
        import torch

        scaler = self.processes.scaler
        if scaler:
            scaler.unscale_(self.optimiser)

        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip_norm))
        if not math.isfinite(norm) and not scaler:  # fp16 may overflow: that step is left out
            self._fail(step, "gradient's norm", norm, parts)
        return norm

    def _fail(self, step: int, what: str, value: float, parts: Sequence[Part]) -> None:
        rows: list[Row] = [self.data.rows[at] for part in parts for at in part.rows]
        rows += [self.data.replay[at] for part in parts for at in part.replay]
        names = list(dict.fromkeys(name for row in rows for name in row.records))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        held = f"; records of its batch: {', '.join(names[:MOST_NAMED])}{more}" if names else ""
        raise TrainingFailed(
            f"step {step}: the {what} is {value}; look at the records of its batch, or lower train.learning_rate (now "
            f"{self.settings.learning_rate:g}) and start again with: tercet train --fresh{held}"
        )

    def _look(self) -> None:
        """Decode the watched examples when it is time, and at the end; every process decides as the main one."""
        if self.watch is None or (self.done % self.watch.settings.every and self.done < self.settings.steps):
            return
        with self.processes.autocast():
            score = self.watch.look(self.model, self.done, self.parameters, lambda *_: None)
        self.log.write({"step": self.done, "watched": score})
        if self.watch.is_over:
            self.is_over = True
            self.callbacks.announce(
                f"step {self.done}: {self.watch.bad_looks} looks without a better {self.task.primary_metric}: it stops"
            )

    def _is_kept(self) -> bool:
        return self.settings.keep_every is not None and self.done % self.settings.keep_every == 0

    def _checkpoint(self) -> None:
        if self.processes.is_main:
            state = {"step": self.done, "halvings": self.halvings, "is_over": self.is_over, "pin": self.settings.pin}
            state["scaler"] = self.processes.scaler.state_dict() if self.processes.scaler else {}
            state["watch"] = self.watch.state() if self.watch else {}
            best = self.watch.best if self.watch else {}
            paths = [self.folder / checkpoints.CHECKPOINT]
            if self._is_kept():
                paths.append(self.folder / f"step-{self.done:06d}.safetensors")
            for path in paths:
                checkpoints.write(path, self.parameters, self.optimiser, state, best)
            self.log.draw()
        self.processes.wait()

    def _restore(self) -> None:
        path = self.folder / checkpoints.CHECKPOINT
        if not path.exists():
            return
        state, best = checkpoints.read(path, self.parameters, self.optimiser, self.settings.pin)
        self.done, self.halvings, self.is_over = state["step"], state["halvings"], state["is_over"]
        if self.processes.scaler:
            self.processes.scaler.load_state_dict(state["scaler"])
        if self.watch and state["watch"]:
            self.watch.restore(state["watch"], {name: best[name].to(self.parameters[name].device) for name in best})


def finish(model: torch.nn.Module, folder: Path, pin: str) -> None:
    """Put a finished training's adapter into `model`, the best one where decoded answers were watched."""
    import torch

    parameters = trainable(model)
    optimiser = torch.optim.AdamW(list(parameters.values()))
    _, best = checkpoints.read(folder / checkpoints.CHECKPOINT, parameters, optimiser, pin)
    put(parameters, best)
    model.eval()


def put(parameters: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into the parameters of the same names."""
    import torch

    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell a full memory from any other fault, on a GPU and on a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
