"""Stages that wait for an endpoint: many items at once inside the driver, each journalled as it comes."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from tercet.errors import BudgetError, StoreError, TercetError
from tercet.modality import Answers, AsyncGenerator
from tercet.pipeline.stages import Entry, Outcome, Result, Runner, Stage, as_failure

Submit = Callable[[list[Result], bool], "Future[None]"]  # results, and whether they may wait for others


def waits(stage: Stage) -> bool:
    """Say whether a stage's class is an AsyncGenerator."""
    return inspect.iscoroutinefunction(getattr(stage.load(), "make", None))


def run_waiting(
    stage: Stage, entries: Iterable[Entry], answers: Answers, submit: Submit, is_stopping: Callable[[], bool]
) -> None:
    """Answer every entry, `concurrency` at a time; a slot is free again only once its answer is durable.

    A generator that keeps its answers itself (`keeps_answers`) has paid for nothing that could be lost when `make`
    returns, so its slot goes on while the payload is being written.
    """
    asyncio.run(_Run(stage, entries, answers, submit, is_stopping).finish())


class _Run:
    """One stage's entries on their way through a generator that waits."""

    def __init__(
        self, stage: Stage, entries: Iterable[Entry], answers: Answers, submit: Submit, is_stopping: Callable[[], bool]
    ) -> None:
        self.todo, self.submit, self.is_stopping = iter(entries), submit, is_stopping
        self.stage, self.answers = stage, answers
        self.ends: list[TercetError] = []  # why the run ends: a spent budget, a full disk

    async def finish(self) -> None:
        """Work until nothing is left, or until something ends the run."""
        runner = Runner(self.stage, os.cpu_count() or 1, self.answers)
        generator: AsyncGenerator = runner.code
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(generator.concurrency):
                    group.create_task(self._work(runner))
        finally:
            await generator.aclose()
        if self.ends:
            raise self.ends[0]

    async def _work(self, runner: Runner) -> None:
        try:
            await self._answer_all(runner)
        except TercetError as error:  # the others finish what is in flight: it is paid for
            self.ends.append(error)

    async def _answer_all(self, runner: Runner) -> None:
        keeps_answers = getattr(runner.code, "keeps_answers", False)
        written: asyncio.Future[None] | None = None
        # one iterator for all: whoever is free takes the next entry
        for entry in self.todo:
            if self.is_stopping() or self.ends:
                break
            outcome = await _answer(runner, entry)
            if written is not None:
                await written
            written = asyncio.wrap_future(self.submit([(entry.item.index, outcome)], keeps_answers))
            if not keeps_answers:
                await written
        if written is not None:
            await written


async def _answer(runner: Runner, entry: Entry) -> Outcome:
    """Make one payload; an exception is that item's failure, but for a spent budget or a store that fails."""
    try:
        return runner.settle(await runner.code.make(entry.item))
    except (BudgetError, StoreError):
        raise
    except Exception as error:  # noqa: BLE001 - one bad item never stops a run
        return as_failure(runner.stage.kind, error)
