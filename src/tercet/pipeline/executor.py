"""The local executor: spawned workers, one model each, restarted when they die.

Ray and Slurm come later behind the same seam.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from tercet.errors import StoreError, TercetError
from tercet.modality import Answers
from tercet.pipeline.stages import COULD_NOT_RUN, Entry, Outcome, Result, Runner, Stage
from tercet.records import Failure, Verdict

Batch = Sequence[Entry]
OnResults = Callable[[list[Result]], None]


class Executor(Protocol):
    """Runs a stage's batches somewhere; results may come in any order, each item exactly once."""

    def run(self, stage: Stage, batches: Iterator[Batch], on_results: OnResults) -> None:
        """Answer every batch; stops early, with what is in flight delivered, once `is_stopping()`."""

    def close(self) -> None:
        """Stop the workers."""


class InProcess:
    """Runs stages in the driver itself: for tests, previews and runs too small for a worker's start-up."""

    def __init__(self, answers: Answers, is_stopping: Callable[[], bool]) -> None:
        self._answers = answers
        self._is_stopping = is_stopping
        self._runners: dict[str, Runner] = {}

    def run(self, stage: Stage, batches: Iterator[Batch], on_results: OnResults) -> None:
        """Answer the batches one after the other."""
        for batch in batches:
            if self._is_stopping():
                return
            if stage.title not in self._runners:
                self._runners = {stage.title: Runner(stage, os.cpu_count() or 1, self._answers)}
            on_results(list(self._runners[stage.title](batch)))

    def close(self) -> None:
        """Drop the loaded code."""
        self._runners.clear()


class _Worker:
    """One worker process with its pipe, and the entries it has not answered yet."""

    def __init__(self, stage: Stage, cores: int, gpu: int | None) -> None:
        ours, theirs = socket.socketpair()
        environment = dict(os.environ, OMP_NUM_THREADS=str(cores), TOKENIZERS_PARALLELISM="false")
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        command = [sys.executable, "-m", "tercet.pipeline.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.pipe.send((stage, cores))
        self.waiting: list[Entry] = []
        self.is_ready = False

    def stop(self) -> None:
        """Ask the process to end; kill it if it is busy."""
        try:
            if not self.waiting:
                self.pipe.send(None)
        except OSError:
            pass  # it is gone already
        self.pipe.close()
        try:
            self.process.wait(timeout=1 if not self.waiting else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalExecutor:
    """Spawned workers on this machine.

    A worker that dies is replaced; the item it was at is tried once more alone, and a second death is that item's
    error. Worker pools of several stages stay alive side by side while their announced memory fits.
    """

    def __init__(
        self, workers: int, answers: Answers, is_stopping: Callable[[], bool], memory_gib: float = 0.0, gpus: int = 0
    ) -> None:
        self._workers = workers
        self._answers = answers
        self._is_stopping = is_stopping
        self._memory_gib = memory_gib or _machine_memory_gib() * 0.8
        self._gpus = gpus
        self._pools: dict[str, tuple[float, list[_Worker]]] = {}

    def run(self, stage: Stage, batches: Iterator[Batch], on_results: OnResults) -> None:
        """Answer the batches with a pool of workers for this stage."""
        needs = stage.needs
        count = max(1, min(self._workers, int(self._memory_gib / needs.memory_gib)))
        self._make_room(stage.title, count * needs.memory_gib)
        _, pool = self._pools.setdefault(stage.title, (count * needs.memory_gib, []))
        run = _StageRun(self, stage, batches, on_results, pool, count)
        run.finish()

    def start_worker(self, stage: Stage, position: int) -> _Worker:
        """Start one worker; it gets an equal share of the cores, and its own GPU where the stage needs one."""
        cores = max(1, (os.cpu_count() or 1) // self._workers)
        gpu = position % self._gpus if stage.needs.gpus and self._gpus else None
        return _Worker(stage, cores, gpu)

    def answer_question(self, message: tuple[Any, ...]) -> Any:
        """Serve a worker's question about journalled answers."""
        kind, *values = message
        try:
            if kind == "recall":
                return self._answers.recall(values[0])
            if kind == "keep":
                key, value, requests, tokens, money = values
                return self._answers.keep(key, value, requests=requests, tokens=tokens, money=money)
            return self._answers.reserve(requests=values[0], tokens=values[1])
        except TercetError as error:
            return error

    def is_stopping(self) -> bool:
        """Say whether the run was asked to stop."""
        return self._is_stopping()

    def close(self) -> None:
        """Stop every worker."""
        for _, pool in self._pools.values():
            for worker in pool:
                worker.stop()
        self._pools.clear()

    def _make_room(self, title: str, memory_gib: float) -> None:
        """Stop the pools that were started longest ago until this one fits."""
        for other in list(self._pools):
            held = sum(size for name, (size, _) in self._pools.items() if name != title)
            if held + memory_gib <= self._memory_gib:
                return
            if other != title:
                for worker in self._pools.pop(other)[1]:
                    worker.stop()


class _StageRun:
    """One stage's batches on their way through a pool."""

    def __init__(
        self,
        executor: LocalExecutor,
        stage: Stage,
        batches: Iterator[Batch],
        on_results: OnResults,
        pool: list[_Worker],
        count: int,
    ) -> None:
        self.executor, self.stage, self.on_results, self.pool, self.count = executor, stage, on_results, pool, count
        self.batches = batches
        self.again: deque[Batch] = deque()  # batches of a worker that died
        self.deaths: dict[int, int] = {}

    def finish(self) -> None:
        """Feed and listen until nothing is left, or until the run stops and nothing is in flight."""
        while True:
            self._feed()
            busy = [worker for worker in self.pool if worker.waiting]
            loading = [worker for worker in self.pool if not worker.is_ready]
            if not busy and (self.executor.is_stopping() or not loading):
                return
            ready = wait([worker.pipe for worker in busy + loading], timeout=0.5)
            for worker in busy + loading:
                if worker.pipe in ready:
                    self._listen(worker)

    def _next_batch(self) -> Batch | None:
        return self.again.popleft() if self.again else next(self.batches, None)

    def _feed(self) -> None:
        """Give every free worker a batch; start workers as long as there is work for them."""
        if self.executor.is_stopping():
            return
        for worker in self.pool:
            if worker.is_ready and not worker.waiting:
                batch = self._next_batch()
                if batch is None:
                    return
                worker.waiting = list(batch)
                worker.pipe.send(batch)
        while len(self.pool) < self.count and (batch := self._next_batch()) is not None:
            self.again.append(batch)
            self.pool.append(self.executor.start_worker(self.stage, len(self.pool)))

    def _listen(self, worker: _Worker) -> None:
        try:
            kind, *values = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        if kind == "ready":
            worker.is_ready = True
        elif kind == "unable":
            raise values[0]
        elif kind in {"some", "done"}:
            answered = {index for index, _ in values[0]}
            worker.waiting = [entry for entry in worker.waiting if entry.item.index not in answered]
            self.on_results(values[0])
        else:
            worker.pipe.send(self.executor.answer_question((kind, *values)))

    def _bury(self, worker: _Worker) -> None:
        """Replace a dead worker; its first unanswered item is tried once more alone, then given up."""
        code = worker.process.wait()
        worker.pipe.close()
        self.pool.remove(worker)
        if not worker.is_ready:
            raise StoreError(f"{self.stage.title}: a worker ended with code {code} while loading; see its output above")
        if not worker.waiting:
            return
        suspect, rest = worker.waiting[0], worker.waiting[1:]
        self.deaths[suspect.item.index] = self.deaths.get(suspect.item.index, 0) + 1
        if self.stage.kind == "gate":  # a gate's batch stays whole: its composition is part of the result
            rest, alone = [], worker.waiting
        else:
            alone = [suspect]
        if self.deaths[suspect.item.index] == 1:
            self.again.append(alone)
        else:
            message = f"the worker died twice (code {code}) at this item"
            self.on_results([(entry.item.index, self._lost(message)) for entry in alone])
        if rest:
            self.again.append(rest)

    def _lost(self, message: str) -> Outcome:
        if self.stage.kind == "gate":
            return Verdict(self.stage.name, passed=False, reason=f"{COULD_NOT_RUN}: {message}")
        return Failure(self.stage.kind, "WorkerDied", message, retryable=True)


def _machine_memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
