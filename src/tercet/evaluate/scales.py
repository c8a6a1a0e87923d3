"""The largest scale of an adapter that forgets no more than allowed: no step of training is needed to try another.

The scale is chosen on half of the general sentences and shown on the other half, which the choice hasn't seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.evaluate.judging import Judging, check_roles, limited, opened, rescaled
from tercet.evaluate.statistics import FEW_SOURCES, Comparison
from tercet.files import write_atomically
from tercet.pipeline.progress import OnProgress, silent
from tercet.randomness import digest
from tercet.recipe import Recipe
from tercet.train.run import SCALES
from tercet.train.task import Example, Suite

VERSION = 1


def find_scale(
    recipe: Recipe,
    scales: Sequence[float],
    run_dir: Path | None = None,
    *,
    threads: int | None = None,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Try the run's adapter at each scale, and name the largest within `evaluate.margin`; 0 where none is.

    Returns what `scales.json` then holds. Raises as `evaluate_recipe` does, and a UsageError without general suites, or
    where half of one is too little to say anything.
    """
    with ExitStack() as stack:
        judging = stack.enter_context(opened(recipe, run_dir, None, threads, progress, announce))
        suites = limited(judging.task.suites(judging.run_dir), recipe.sections.evaluate.limit)
        check_roles(suites)
        general = [suite for suite in suites if suite.role == "general"]
        if not general:
            raise UsageError("no general set: how much an adapter forgets is unknown; name one in evaluate.general")
        primary = [suite for suite in suites if suite.role == "primary"]
        rows = []
        for scale in sorted(set(scales), reverse=True):
            announce(f"scale {scale:g}")
            at = replace(judging, contestants=rescaled(judging.contestants, scale, stack))
            rows.append(_row(at, scale, [*primary, *general]))
        margin = recipe.sections.evaluate.margin
        fitting = [row["scale"] for row in rows if all(one["high"] <= margin for one in row["chosen_on"].values())]
        result = {"version": VERSION, "margin": margin, "chosen": max(fitting, default=0.0), "scales": rows}
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        write_atomically(judging.run_dir / SCALES, text.encode())
    return result


def is_chosen_on(example: Example) -> bool:
    """Say whether a general example is of the half that the scale is chosen on."""
    return int(digest("scale", example.source)[:2], 16) % 2 == 0


def _row(judging: Judging, scale: float, suites: Sequence[Suite]) -> dict[str, Any]:
    heard = judging.hear(suites)
    task, judge = judging.task, judging.judge

    halves: dict[str, dict[str, Any]] = {"chosen_on": {}, "shown_on": {}}
    for suite in suites:
        if suite.role == "general":
            for name, is_half in (("chosen_on", True), ("shown_on", False)):
                some = [one for one in heard[suite.name] if is_chosen_on(one.example) == is_half]
                found = judge.compare(some, task.general_metric)
                sources = found.sources if found else 0
                if sources < FEW_SOURCES:
                    raise UsageError(
                        f"general set {suite.name}: {sources} sources with units of {task.general_metric} in the half "
                        f"that a scale is {name.replace('_', ' ')}, and {FEW_SOURCES} are the least; give it more "
                        "examples, or judge one scale at a time"
                    )
                halves[name][suite.name] = _numbers(found)
    (primary,) = (suite.name for suite in suites if suite.role == "primary")
    return {"scale": scale, "primary": _numbers(judge.compare(heard[primary], task.primary_metric)), **halves}


def _numbers(found: Comparison | None) -> dict[str, float] | None:
    return None if found is None else {key: asdict(found)[key] for key in ("base", "tuned", "change", "low", "high")}
