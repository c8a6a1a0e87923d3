"""Stages that wait for an endpoint: many items at once inside the driver, each journalled as it comes."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from tercet.errors import BudgetError
from tercet.modality import Answers, AsyncGenerator
from tercet.pipeline.stages import Entry, Outcome, Result, Runner, Stage, as_failure

Submit = Callable[[list[Result]], "Future[None]"]


def waits(stage: Stage) -> bool:
    """Say whether a stage's class is an AsyncGenerator."""
    return inspect.iscoroutinefunction(getattr(stage.load(), "make", None))


def run_waiting(
    stage: Stage, entries: Iterable[Entry], answers: Answers, submit: Submit, is_stopping: Callable[[], bool]
) -> None:
    """Answer every entry, `concurrency` at a time; a slot is free again only once its answer is durable."""
    asyncio.run(_run(stage, entries, answers, submit, is_stopping))


async def _run(
    stage: Stage, entries: Iterable[Entry], answers: Answers, submit: Submit, is_stopping: Callable[[], bool]
) -> None:
    runner = Runner(stage, os.cpu_count() or 1, answers)
    generator: AsyncGenerator = runner.code
    todo = iter(entries)

    spent: list[BudgetError] = []

    async def work() -> None:
        # one iterator for all: whoever is free takes the next entry
        for entry in todo:
            if is_stopping() or spent:
                return
            try:
                outcome = await _answer(runner, entry)
            except BudgetError as error:  # the others finish what is in flight: it is paid for
                spent.append(error)
                return
            await asyncio.wrap_future(submit([(entry.item.index, outcome)]))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(generator.concurrency):
                group.create_task(work())
    finally:
        await generator.aclose()
    if spent:
        raise spent[0]


async def _answer(runner: Runner, entry: Entry) -> Outcome:
    """Make one payload; an exception is that item's failure, but for a spent budget, which ends the run."""
    try:
        return runner.settle(await runner.code.make(entry.item))
    except BudgetError:
        raise
    except Exception as error:  # noqa: BLE001 - one bad item never stops a run
        return as_failure(runner.stage.kind, error)
