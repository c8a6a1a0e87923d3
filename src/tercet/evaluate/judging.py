"""What an evaluation needs before anybody answers: the run locked, its adapter found, the suites in order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tercet.errors import StoreError, UsageError
from tercet.evaluate.answers import KeptAnswers, answer_all, content_digest
from tercet.evaluate.counting import Heard, Judge, hear
from tercet.models import ResolvedModel
from tercet.pipeline.progress import OnProgress, Progress
from tercet.pipeline.run import Interrupted, StopOnInterrupt, default_run_dir
from tercet.randomness import digest
from tercet.recipe import Evaluate, Recipe
from tercet.store.durable import make_folder
from tercet.store.lock import RunLock
from tercet.train import adapters
from tercet.train.base import resolve_base
from tercet.train.pin import records_digest
from tercet.train.run import adapter_folder, use_threads
from tercet.train.task import OnUnits, Suite, Task, find_task


@dataclass(frozen=True)
class Contestants:
    """The two models: a base, and the adapter on it."""

    base: ResolvedModel
    adapter: Path
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Judging:
    """An evaluation under way: the models, where their answers are kept, and how they are compared."""

    task: Task
    run_dir: Path
    contestants: Contestants
    judge: Judge
    begin: Callable[[str], OnUnits]
    folder: Path  # where answers are kept

    def hear(self, suites: Sequence[Suite]) -> dict[str, list[Heard]]:
        """Let both models answer every suite, and count."""
        base, task = self.contestants.base, self.task
        names = [digest(base.digest, weights, task.decoding) for weights in ("", str(self.contestants.card["weights"]))]
        keys = {suite.name: [content_digest(example.content) for example in suite.examples] for suite in suites}
        given = {key: one for suite in suites for key, one in zip(keys[suite.name], suite.examples, strict=True)}
        paths = [self.folder / f"{name}.jsonl" for name in names]
        with KeptAnswers(paths[0]) as first, KeptAnswers(paths[1]) as second:
            answer_all(task, base.path, self.contestants.adapter, given, (first, second), self.begin)
            return {
                suite.name: [
                    hear(task, one, first[key], second[key])
                    for key, one in zip(keys[suite.name], suite.examples, strict=True)
                ]
                for suite in suites
            }


@contextmanager
def opened(
    recipe: Recipe,
    run_dir: Path | None,
    adapter: Path | None,
    threads: int | None,
    progress: OnProgress,
    announce: Callable[[str], None],
    *,
    fresh: bool = False,
    answers: Path | None = None,
) -> Iterator[Judging]:
    """Lock a run for an evaluation, its adapter found and held against base and records; see `evaluate_recipe`."""
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    if not run_dir.is_dir():
        raise StoreError(f"{run_dir}: no finished run here; run first: tercet run {recipe.path}")
    with RunLock(run_dir), StopOnInterrupt() as stop:
        contestants = find_contestants(recipe, task, run_dir, adapter, announce)
        _check_records(recipe, run_dir, contestants, announce, is_own=adapter is None)
        settings: Evaluate = recipe.sections.evaluate
        judge = Judge(settings.bootstrap, settings.confidence)
        folder = answers or run_dir / "evaluation"
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        yield Judging(task, run_dir, contestants, judge, beginning(threads, progress, stop.is_set), folder)


def find_contestants(
    recipe: Recipe, task: Task, run_dir: Path, adapter: Path | None, announce: Callable[[str], None]
) -> Contestants:
    """Find the adapter (the run's own unless given) and the base that it was trained on."""
    folder = adapter or adapter_folder(recipe, run_dir)
    card = adapters.read_card(folder)
    base = resolve_base(recipe, task, str(card.get("base", "")), announce)
    adapters.check(folder, base.digest)
    return Contestants(base, folder, card)


def _check_records(
    recipe: Recipe, run_dir: Path, contestants: Contestants, announce: Callable[[str], None], *, is_own: bool
) -> None:
    """Hold the run's shards, whole by their digests, against those trained on: what is held out of others is not here.

    An adapter from elsewhere may have seen these suites: that is said, and judged all the same.
    """
    if records_digest(recipe, run_dir) == contestants.card.get("records"):
        return
    if is_own:
        raise StoreError(
            f"{contestants.adapter}: trained on other records than {run_dir} holds, so it may know what is held out "
            "there; train again with: tercet train --fresh"
        )
    announce(f"note: {contestants.adapter} was trained on other records; it may have seen what is held out here")


def rescaled(contestants: Contestants, scale: float, stack: ExitStack) -> Contestants:
    """Give the contestants with the adapter at another scale, in a folder that goes with `stack`.

    Raises:
        UsageError: a DoRA adapter has one scale only.
        CorruptError: the adapter's card is damaged.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tercet-adapter-")))
    adapters.rescale(contestants.adapter, folder, scale)
    return replace(contestants, adapter=folder, card=adapters.read_card(folder))


def limited(suites: Sequence[Suite], limit: int | None) -> list[Suite]:
    """Keep at most `limit` examples of each suite, spread evenly over it."""

    def cut(suite: Suite) -> Suite:
        total = len(suite.examples)
        if limit is None or total <= limit:
            return suite
        return replace(suite, examples=[suite.examples[number * total // limit] for number in range(limit)])

    return [cut(suite) for suite in suites]


def check_roles(suites: Sequence[Suite]) -> None:
    """Refuse suites that can't decide."""
    names = [suite.name for suite in suites]
    for suite in suites:
        if names.count(suite.name) > 1:
            raise UsageError(f"two suites are called {suite.name!r}; give the folder of general examples another name")
        if suite.role == "general" and not suite.examples:
            raise UsageError(f"general suite {suite.name} holds no example; fill it, or take it out of the recipe")
    primary = [suite.name for suite in suites if suite.role == "primary" and suite.examples]
    if len(primary) != 1:
        found = ", ".join(primary) or "none"
        raise UsageError(
            f"one primary suite with examples decides, and there is {found}; let the recipe make held-out records "
            "that pass its gates, then run and train again"
        )


def beginning(threads: int | None, progress: OnProgress, is_stopping: Callable[[], bool]) -> Callable[[str], OnUnits]:
    """Give what is called when a model begins to answer, and returns what it tells its progress."""

    def begin(who: str) -> OnUnits:
        use_threads(threads)  # only now: where every answer is kept, torch isn't even imported

        def on_units(done: int, total: int) -> None:
            progress(Progress(f"evaluate: {who}", done, total))
            if is_stopping():
                raise Interrupted("interrupted: what was decoded is kept; the same command goes on from there")

        return on_units

    return begin
