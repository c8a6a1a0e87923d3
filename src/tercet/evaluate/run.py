"""Judge a recipe's adapter: base and tuned on the same frozen suites, compared, decided, written down."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tercet.errors import StoreError, UsageError
from tercet.evaluate.answers import KeptAnswers, answer_all, content_digest
from tercet.evaluate.counting import Heard, Judge, hear, suite_numbers
from tercet.evaluate.decision import Decision, decide
from tercet.files import write_atomically
from tercet.models import ResolvedModel
from tercet.pipeline.progress import OnProgress, Progress, silent
from tercet.pipeline.run import Interrupted, StopOnInterrupt, default_run_dir
from tercet.randomness import digest
from tercet.recipe import Evaluate, Recipe
from tercet.store.durable import make_folder
from tercet.store.lock import RunLock
from tercet.train import adapters
from tercet.train.base import resolve_base
from tercet.train.loading import load
from tercet.train.pin import records_digest
from tercet.train.run import EVALUATION, adapter_folder, use_threads
from tercet.train.task import AnswersBoth, OnUnits, Suite, Task, find_task, rate

EVALUATION_VERSION = 1
CARRIED = ("scale", "seed", "steps", "recipe", "records")  # from the adapter's card


@dataclass(frozen=True)
class Contestants:
    """The two models: a base, and the adapter on it."""

    base: ResolvedModel
    adapter: Path
    card: Mapping[str, Any]


def evaluate_recipe(
    recipe: Recipe,
    run_dir: Path | None = None,
    *,
    adapter: Path | None = None,
    scale: float | None = None,
    fresh: bool = False,
    threads: int | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare the recipe's adapter with its base on the task's suites and decide; return what `evaluation.json` holds.

    With another `adapter`, or at another `scale`, the result is returned and not written: the file speaks of the
    run's own adapter. `fresh` decodes again what was decoded before.

    Raises:
        ModelError: there is no adapter, or it belongs to another base.
        StoreError: the run's records aren't those that its adapter was trained on.
        CorruptError: adapter or shards are damaged.
        UsageError: the suites can't decide.
        Interrupted: Ctrl-C; every answer so far is kept.
    """
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    if not run_dir.is_dir():
        raise StoreError(f"{run_dir}: no finished run here; run first: tercet run {recipe.path}")
    with ExitStack() as stack:
        stack.enter_context(RunLock(run_dir))
        stop = stack.enter_context(StopOnInterrupt())
        contestants = find_contestants(recipe, task, run_dir, adapter, announce)
        _check_records(recipe, run_dir, contestants, announce, is_own=adapter is None)
        if scale is not None:
            contestants = _rescaled(contestants, scale, stack)
        suites = _limited(task.suites(run_dir), recipe.sections.evaluate.limit)
        _check_roles(suites)
        folder = run_dir / "evaluation"
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        heard = _hear(task, contestants, suites, folder, _beginning(threads, progress, stop.is_set))
        result = _judge(recipe, task, contestants, suites, heard)
        text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        if adapter is None and scale is None:
            write_atomically(run_dir / EVALUATION, text.encode())
    return result


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


def _rescaled(contestants: Contestants, scale: float, stack: ExitStack) -> Contestants:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tercet-adapter-")))
    adapters.rescale(contestants.adapter, folder, scale)
    return replace(contestants, adapter=folder, card=adapters.read_card(folder))


def _limited(suites: Sequence[Suite], limit: int | None) -> list[Suite]:
    """Keep at most `limit` examples of each suite, spread evenly over it."""

    def cut(suite: Suite) -> Suite:
        total = len(suite.examples)
        if limit is None or total <= limit:
            return suite
        return replace(suite, examples=[suite.examples[number * total // limit] for number in range(limit)])

    return [cut(suite) for suite in suites]


def _check_roles(suites: Sequence[Suite]) -> None:
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


def _beginning(threads: int | None, progress: OnProgress, is_stopping: Callable[[], bool]) -> Callable[[str], OnUnits]:
    def begin(who: str) -> OnUnits:
        use_threads(threads)  # only now: where every answer is kept, torch isn't even imported

        def on_units(done: int, total: int) -> None:
            progress(Progress(f"evaluate: {who}", done, total))
            if is_stopping():
                raise Interrupted("interrupted: what was decoded is kept; the same command goes on from there")

        return on_units

    return begin


def _hear(
    task: Task, contestants: Contestants, suites: Sequence[Suite], folder: Path, begin: Callable[[str], OnUnits]
) -> dict[str, list[Heard]]:
    """Let both models answer every suite, and count."""
    base = contestants.base
    names = [digest(base.digest, weights, task.decoding) for weights in ("", str(contestants.card["weights"]))]
    keys = {suite.name: [content_digest(example.content) for example in suite.examples] for suite in suites}
    given = {key: one for suite in suites for key, one in zip(keys[suite.name], suite.examples, strict=True)}
    with KeptAnswers(folder / f"{names[0]}.jsonl") as first, KeptAnswers(folder / f"{names[1]}.jsonl") as second:
        answer_all(task, base.path, contestants.adapter, given, (first, second), begin)
        return {
            suite.name: [
                hear(task, one, first[key], second[key])
                for key, one in zip(keys[suite.name], suite.examples, strict=True)
            ]
            for suite in suites
        }


def _judge(
    recipe: Recipe,
    task: Task,
    contestants: Contestants,
    suites: Sequence[Suite],
    heard: Mapping[str, Sequence[Heard]],
) -> dict[str, Any]:
    settings: Evaluate = recipe.sections.evaluate
    judge = Judge(settings.bootstrap, settings.confidence)
    decision = _decide(task, suites, heard, judge, settings.margin)
    base, card = contestants.base, contestants.card
    return {
        "version": EVALUATION_VERSION,
        "task": recipe.sections.train.task,
        "base": {"reference": base.reference, "digest": base.digest, "licence": base.licence},
        "adapter": {
            "digest": card["weights"],
            "rank": adapters.rank(contestants.adapter),
            **{name: card.get(name) for name in CARRIED},
        },
        "decoding": dict(task.decoding),
        "confidence": settings.confidence,
        "resamples": settings.bootstrap,
        "margin": settings.margin,
        "suites": {suite.name: suite_numbers(task, suite, heard[suite.name], judge) for suite in suites},
        "decision": {"verdict": decision.verdict, "reasons": list(decision.reasons)},
    }


def _decide(
    task: Task, suites: Sequence[Suite], heard: Mapping[str, Sequence[Heard]], judge: Judge, margin: float
) -> Decision:
    """Hand the decision its numbers; false triggers are the tuned model's over the primary and general suites."""
    primary_name = next(suite.name for suite in suites if suite.role == "primary" and suite.examples)
    primary = judge.compare(heard[primary_name], task.primary_metric)
    if primary is None:
        raise UsageError(f"suite {primary_name}: no example has units of {task.primary_metric}; nothing can be decided")
    general = {}
    for suite in (one for one in suites if one.role == "general"):
        found = judge.compare(heard[suite.name], task.general_metric)
        if found is None:
            raise UsageError(f"suite {suite.name}: no example has units of {task.general_metric}; mend its references")
        general[suite.name] = found
    others = judge.compare(heard[primary_name], task.other_metric)
    deciding = [one.tuned_counts for suite in suites if suite.role != "other" for one in heard[suite.name]]
    triggers = rate(deciding, task.false_trigger_metric) or 0.0
    names = (task.primary_metric, task.other_metric)
    return decide(primary, general, others, triggers, margin=margin, names=names)


def try_recipe(
    recipe: Recipe,
    inputs: Sequence[str],
    run_dir: Path | None = None,
    *,
    adapter: Path | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, str]]:
    """Let base and tuned answer each input; returns `{input, base, tuned}` per input.

    Raises:
        ModelError: there is no adapter, or it belongs to another base.
        SourceError: an input can't be read.
    """
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    contestants = find_contestants(recipe, task, run_dir, adapter, announce)
    examples = [task.read_input(text) for text in inputs]
    begin = _beginning(None, progress, lambda: False)
    on_units = begin("base and tuned")
    model = load(task.load_base(contestants.base.path), contestants.adapter, contestants.base.digest)
    if isinstance(task, AnswersBoth):
        answers = list(task.answer_both(model, examples, on_units))
    else:
        with adapters.as_base(model):
            first = list(task.answer(model, examples, on_units))
        answers = list(zip(first, task.answer(model, examples, on_units), strict=True))
    return [{"input": text, "base": said, "tuned": tuned} for text, (said, tuned) in zip(inputs, answers, strict=True)]
