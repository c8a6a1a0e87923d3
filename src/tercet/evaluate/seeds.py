"""The whole loop over several seeds: what of the result is the recipe's, and what the seed's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.evaluate.layout import metrics_in_order, rates_of, suites_in_order
from tercet.evaluate.run import evaluate_recipe
from tercet.files import write_atomically
from tercet.machine import describe_machine, say_machine
from tercet.pipeline.progress import OnProgress, silent
from tercet.pipeline.run import StopOnInterrupt, run_recipe, stop_between_stages
from tercet.recipe import Recipe
from tercet.store.durable import make_folder
from tercet.train.run import train_recipe
from tercet.train.task import modality_of_task

VERSION = 1
KEPT = ("base", "adapter", "decision", "margin", "confidence")  # of an evaluation, beside its suites
Key = tuple[str, str]  # (suite's title, metric or rate)


def run_seeds(
    recipe: Recipe,
    count: int,
    out: Path,
    *,
    fresh: bool = False,
    command: str = "",
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run, train and evaluate `recipe` under `count` seeds from its own on, each in `out/seed-<n>`.

    Only the modality that brings the training task is made: the others change nothing in the result.

    Returns what `out/seeds.json` then holds; `out/seeds.md` holds it as a table. An interrupted call goes on where it
    was; `fresh` makes every seed again. Raises what the three steps raise, and Interrupted between them too.
    """
    first = recipe.sections.seed
    evaluations = {}
    with StopOnInterrupt() as stop:
        for seed in range(first, first + count):
            stop_between_stages(stop)
            announce(f"seed {seed}")
            seeded = recipe.replaced(seed=seed, modalities=trained_alone(recipe))
            evaluations[str(seed)] = _one(seeded, out / f"seed-{seed}", fresh, progress, announce, stop)
    result = {
        "version": VERSION,
        "command": command,
        "machine": describe_machine(),
        "recipe": recipe.name,
        "seeds": {seed: kept(evaluation) for seed, evaluation in evaluations.items()},
    }
    write_atomically(out / "seeds.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(out / "seeds.md", (table(result) + "\n").encode())
    return result


def table(result: Mapping[str, Any]) -> str:
    """Lay out every seed and the mean as Markdown, with command and machine above."""
    seeds: Mapping[str, Any] = result["seeds"]
    lines = [
        f"`{result['command']}` ({say_machine(result['machine'])}):",
        "",
        "| set | measure | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean |",
        "|---|---|" + "---:|" * (len(seeds) + 1),
        "| decision | | " + " | ".join(one["decision"]["verdict"] for one in seeds.values()) + " | |",
    ]
    cells: dict[Key, dict[str, tuple[float, float]]] = {}
    for seed, one in seeds.items():
        for key, pair in _pairs(one):
            cells.setdefault(key, {})[seed] = pair
    for (title, measure), found in cells.items():
        shown = [_say(*found[seed]) if seed in found else "-" for seed in seeds]
        means = [sum(values) / len(found) for values in zip(*found.values(), strict=True)]
        lines.append(f"| {title} | {measure} | " + " | ".join([*shown, _say(*means)]) + " |")
    return "\n".join(lines)


def trained_alone(recipe: Recipe) -> dict[str, Any]:
    """Give the recipe's `modalities` with that one alone whose records are trained on."""
    name = modality_of_task(recipe)
    filled = recipe.data.get("modalities") or {}
    if name not in filled:
        raise UsageError(f"{recipe.path}: train.task {recipe.sections.train.task} needs modalities.{name}; fill it")
    return {name: filled[name]}


def _one(
    recipe: Recipe,
    run_dir: Path,
    fresh: bool,  # noqa: FBT001
    progress: OnProgress,
    announce: Callable[[str], None],
    stop: threading.Event,
) -> dict[str, Any]:
    """Bring one seed to its evaluation; what is made, trained or decoded already isn't made again."""
    make_folder(run_dir)
    run_recipe(recipe, run_dir, fresh=fresh, progress=progress, announce=announce)
    stop_between_stages(stop)
    train_recipe(recipe, run_dir, progress=progress, announce=announce)
    stop_between_stages(stop)
    return evaluate_recipe(recipe, run_dir, progress=progress, announce=announce)


def kept(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what the table and a reader need: no examples, no slices."""
    suites = {
        name: {key: value for key, value in suite.items() if key not in {"examples", "slices"}}
        for name, suite in suites_in_order(evaluation)
    }
    return {**{name: evaluation[name] for name in KEPT}, "suites": suites}


def _pairs(evaluation: Mapping[str, Any]) -> Iterator[tuple[Key, tuple[float, float]]]:
    for _, suite in suites_in_order(evaluation):
        for metric, held in metrics_in_order(suite):
            yield (suite["title"], metric), (held["base"], held["tuned"])
        for rate, base, tuned in rates_of(suite):
            yield (suite["title"], rate), (base, tuned)


def _say(base: float, tuned: float) -> str:
    """Say a pair with its change: in points, and relative to the base where there is one."""
    relative = f", {(tuned - base) / base:+.0%}" if base else ""
    return f"{base:.2f} → {tuned:.2f} ({tuned - base:+.2f}{relative})"
