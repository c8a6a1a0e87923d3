"""Judge a recipe's adapter: base and tuned on the same frozen suites, compared, decided, written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.evaluate.counting import Heard, Judge, suite_numbers
from tercet.evaluate.decision import Decision, decide
from tercet.evaluate.judging import Judging, beginning, check_roles, find_contestants, limited, opened, rescaled
from tercet.evaluate.layout import EVALUATION_VERSION
from tercet.files import write_atomically
from tercet.pipeline.progress import OnProgress, silent
from tercet.pipeline.run import default_run_dir
from tercet.recipe import Evaluate, Recipe
from tercet.report.model_card import write_model_card
from tercet.train import adapters
from tercet.train.loading import load
from tercet.train.run import EVALUATION
from tercet.train.task import AnswersBoth, Example, Shows, Suite, Task, find_task, modality_of_task, rate

CARRIED = ("scale", "seed", "steps", "recipe", "records")  # from the adapter's card


def evaluate_recipe(  # noqa: PLR0913 - the options of a verb
    recipe: Recipe,
    run_dir: Path | None = None,
    *,
    adapter: Path | None = None,
    scale: float | None = None,
    fresh: bool = False,
    threads: int | None = None,
    answers: Path | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare the recipe's adapter with its base on the task's suites and decide; return what `evaluation.json` holds.

    With another `adapter`, or at another `scale`, the result is returned and not written: the file speaks of the
    run's own adapter. `fresh` decodes again what was decoded before. `answers` is the folder that keeps what both said
    (default: in the run): evaluations that share it let the base answer the same thing once.

    Raises:
        ModelError: there is no adapter, or it belongs to another base.
        StoreError: the run's records aren't those that its adapter was trained on.
        CorruptError: adapter or shards are damaged.
        UsageError: the suites can't decide.
        Interrupted: Ctrl-C; every answer so far is kept.
    """
    with ExitStack() as stack:
        judging = stack.enter_context(
            opened(recipe, run_dir, adapter, threads, progress, announce, fresh=fresh, answers=answers)
        )
        if scale is not None:
            judging = replace(judging, contestants=rescaled(judging.contestants, scale, stack))
        suites = limited(judging.task.suites(judging.run_dir), recipe.sections.evaluate.limit)
        check_roles(suites)
        result = _judge(recipe, judging, suites, judging.hear(suites))
        text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        if adapter is None and scale is None:
            write_atomically(judging.run_dir / EVALUATION, text.encode())
            folder, card = judging.contestants.adapter, judging.contestants.card
            tag = judging.task.defaults.pipeline_tag
            write_model_card(judging.run_dir, folder, card, modality_of_task(recipe), tag, result)
    return result


def _judge(
    recipe: Recipe, judging: Judging, suites: Sequence[Suite], heard: Mapping[str, Sequence[Heard]]
) -> dict[str, Any]:
    settings: Evaluate = recipe.sections.evaluate
    task, judge, contestants = judging.task, judging.judge, judging.contestants
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
    names = (task.primary_metric, task.other_metric, task.false_trigger_metric)
    return decide(primary, general, others, triggers, margin=margin, allowed=task.defaults.false_triggers, names=names)


def try_recipe(
    recipe: Recipe,
    inputs: Sequence[str],
    run_dir: Path | None = None,
    *,
    adapter: Path | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Let base and tuned answer each input; returns `{input, base, tuned}` per input.

    Where the task shows more than text, `html` holds the same three as HTML.

    Raises:
        ModelError: there is no adapter, or it belongs to another base.
        SourceError: an input can't be read.
    """
    run_dir = run_dir or default_run_dir(recipe)
    task = find_task(recipe)
    contestants = find_contestants(recipe, task, run_dir, adapter, announce)
    examples = [task.read_input(text) for text in inputs]
    begin = beginning(None, progress, lambda: False)
    on_units = begin("base and tuned")
    model = load(task.load_base(contestants.base.path), contestants.adapter, contestants.base.digest)
    if isinstance(task, AnswersBoth):
        answers = list(task.answer_both(model, examples, on_units))
    else:
        with adapters.as_base(model):
            first = list(task.answer(model, examples, on_units))
        answers = list(zip(first, task.answer(model, examples, on_units), strict=True))
    return [
        {"input": text, **_sides(task, example, said, tuned)}
        for text, example, (said, tuned) in zip(inputs, examples, answers, strict=True)
    ]


def _sides(task: Task, example: Example, base: str, tuned: str) -> dict[str, Any]:
    if not isinstance(task, Shows):
        return {"base": base, "tuned": tuned}
    asked, first, second = task.show_example(example), task.show_answer(base), task.show_answer(tuned)
    html = {"input": asked.html, "base": first.html, "tuned": second.html}
    return {"base": first.text, "tuned": second.text, "html": html}
