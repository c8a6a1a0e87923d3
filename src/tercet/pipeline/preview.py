"""Make and judge a few records of each modality without a run directory: the first look at a recipe."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tercet.modality import NoAnswers
from tercet.pipeline.planned import PlannedModality, plan_recipe
from tercet.pipeline.progress import OnProgress, Progress, silent
from tercet.pipeline.stages import Entry, Outcome, Runner, as_failure
from tercet.pipeline.staging import Staged, unstage
from tercet.pipeline.waiting import waits
from tercet.recipe import Recipe
from tercet.records import Columns, Failure, Item, Verdict
from tercet.sources import load_sources
from tercet.store.blobs import FolderBlobs


@dataclass(frozen=True)
class Previewed:
    """One record of a preview: its item, its payload or failure, and the verdicts up to the first that rejects."""

    item: Item
    payload: Columns | None
    failure: Failure | None
    verdicts: tuple[Verdict, ...]

    @property
    def is_kept(self) -> bool:
        """Say whether a run would keep this record, corpus gates aside."""
        return self.failure is None and all(verdict.passed for verdict in self.verdicts)


def preview(recipe: Recipe, count: int = 5, *, progress: OnProgress = silent) -> dict[str, list[Previewed]]:
    """Make `count` records of each modality, spread evenly over its plan; nothing is kept on disk."""
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_recipe(recipe, load_sources(recipe), Path(folder))
        return {one.name: _preview_one(one, count, progress) for one in planned}


def _preview_one(planned: PlannedModality, count: int, progress: OnProgress) -> list[Previewed]:
    size = len(planned.plan)
    count = min(count, size)
    items = [planned.plan.item(position * size // count) for position in range(count)]
    outcomes: dict[int, Outcome] = {}
    for name, stage in planned.generators.items():
        mine = [item for item in items if item.generator == name]
        if not mine:
            continue
        runner = Runner(stage, os.cpu_count() or 1, NoAnswers())
        made = _wait_for(runner, mine) if waits(stage) else dict(runner([Entry(item) for item in mine]))
        outcomes.update(made)
        progress(Progress(stage.title, len(outcomes), count))
    verdicts: dict[int, list[Verdict]] = {item.index: [] for item in items}
    alive = [item for item in items if isinstance(outcomes[item.index], Staged)]
    for stage in planned.gates:
        if not alive:
            break
        runner = Runner(stage, os.cpu_count() or 1, NoAnswers())
        for start in range(0, len(alive), stage.batch_size):
            batch = [_staged(outcomes, item, slot) for slot, item in enumerate(alive[start : start + stage.batch_size])]
            for index, verdict in runner(batch):
                if isinstance(verdict, Verdict):
                    verdicts[index].append(verdict)
        alive = [item for item in alive if verdicts[item.index][-1].passed]
        progress(Progress(stage.title, len(alive), count))
    return [_previewed(planned, item, outcomes[item.index], verdicts[item.index]) for item in items]


def _staged(outcomes: dict[int, Outcome], item: Item, slot: int) -> Entry:
    staged = outcomes[item.index]
    assert isinstance(staged, Staged)  # only made items are alive
    return Entry(item, staged.packed, slot)


def _previewed(planned: PlannedModality, item: Item, outcome: Outcome, verdicts: list[Verdict]) -> Previewed:
    if isinstance(outcome, Failure):
        return Previewed(item, None, outcome, ())
    assert isinstance(outcome, Staged)  # a generator gives one or the other
    blobs = FolderBlobs(next(iter(planned.generators.values())).blobs)
    payload, _ = unstage(outcome.packed, blobs)
    return Previewed(item, payload, None, tuple(verdicts))


def _wait_for(runner: Runner, items: list[Item]) -> dict[int, Outcome]:
    async def make_all() -> dict[int, Outcome]:
        try:
            answers = await asyncio.gather(*(runner.code.make(item) for item in items), return_exceptions=True)
        finally:
            await runner.code.aclose()
        return {item.index: _settle(runner, answer) for item, answer in zip(items, answers, strict=True)}

    return asyncio.run(make_all())


def _settle(runner: Runner, answer: object) -> Outcome:
    if isinstance(answer, Exception):
        return as_failure(runner.stage.kind, answer)
    settled: Outcome = runner.settle(answer)  # type: ignore[arg-type]
    return settled
