"""`tercet eval --sweep`: variants of one recipe, each made, trained and judged by itself, under several seeds.

A sweep is a YAML file:

    set: {train.steps: 120}                     # for every variant
    variants:
      default: {seeds: [1, 2, 3]}
      no replay: {seeds: [1, 2, 3], set: {train.replay: 0}}
      a quarter of the data: {set: {train.data_fraction: 0.25}}

Variants whose records are the same share them, and the base's answers: data is made once, and the base is asked once.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tercet.errors import RecipeError
from tercet.evaluate.layout import say_confidence, suites_in_order
from tercet.evaluate.run import evaluate_recipe
from tercet.evaluate.seeds import kept, trained_alone
from tercet.evaluate.sweep_figure import figure
from tercet.files import disk_error, link_or_copy, write_atomically
from tercet.machine import describe_machine, say_machine
from tercet.pipeline.progress import OnProgress, silent
from tercet.pipeline.run import StopOnInterrupt, clear_run, run_recipe, stop_between_stages
from tercet.recipe import Recipe, Section, explain_fault
from tercet.store.durable import make_folder
from tercet.store.lock import RunLock
from tercet.store.manifest import MANIFEST_NAME
from tercet.train.run import train_recipe
from tercet.yaml_lines import read_yaml

VERSION = 1
RESULTS = ("sweep.json", "sweep.md", "sweep.svg")
ANSWERS = "answers"  # of all cells: what both models said
Seeds = tuple[int, ...]


class Variant(Section):
    """One way to set the recipe."""

    seeds: Seeds = Field((), description="default: the recipe's own seed")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted key of the recipe: its value")


class SweepFile(Section):
    """What a sweep tries."""

    set: dict[str, Any] = Field(default_factory=dict, description="for every variant")
    variants: dict[str, Variant] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One variant under one seed."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Name its folder within the sweep."""
        return f"{slug(self.variant)}/seed-{self.seed}"

    @property
    def made(self) -> str:
        """Name the folder of its records, which cells with the same data share."""
        return f"data/{self.recipe.digest[:16]}"


def read_sweep(path: Path, recipe: Recipe) -> list[Cell]:
    """Read and check a sweep file against its recipe.

    Raises:
        RecipeError: names the file, the variant, and what is wrong with it.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such sweep file; recipes/pharmacy-ablations.yaml is one to start from")
    located = read_yaml(path)
    if not isinstance(located.data, dict):
        raise RecipeError(
            f"{path}:1: a sweep file is a mapping with `variants`; write for example: variants: {{a: {{}}}}"
        )
    try:
        sweep = SweepFile.model_validate(located.data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        keys = tuple(fault["loc"])
        raise RecipeError(f"{located.place(keys)}: {explain_fault(fault, keys, SweepFile)}") from error
    slugs = [slug(name) for name in sweep.variants]
    if twice := next((name for name in slugs if slugs.count(name) > 1), None):
        raise RecipeError(f"{path}: variants: two names become the folder {twice!r}; rename one")
    alone = recipe.replaced(modalities=trained_alone(recipe))
    cells = []
    for name, variant in sweep.variants.items():
        for seed in variant.seeds or (recipe.sections.seed,):
            place = located.place(("variants", name))
            cells.append(Cell(name, seed, _changed(alone, {**sweep.set, **variant.set, "seed": seed}, place)))
    return cells


def run_sweep(
    recipe: Recipe,
    sweep: Path,
    out: Path,
    *,
    fresh: bool = False,
    threads: int | None = None,
    command: str = "",
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Bring every variant to its evaluation, in `out`; an interrupted call goes on where it was.

    Returns what `out/sweep.json` then holds; `sweep.md` holds it as a table and `sweep.svg` as a picture. They are
    written as soon as they say no less than before. `fresh` makes, trains and judges every variant anew. Raises what
    run, train and evaluate raise, and Interrupted between them too.
    """
    cells = read_sweep(sweep, recipe)
    if fresh:
        _clear(cells, out)
    open_cells = _written(out / RESULTS[0]) & {(cell.variant, str(cell.seed)) for cell in cells}
    variants: dict[str, dict[str, Any]] = {}
    result = {
        "version": VERSION,
        "command": command,
        "machine": describe_machine(),
        "recipe": recipe.name,
        "variants": variants,
    }
    with StopOnInterrupt() as stop:
        for number, cell in enumerate(cells, 1):
            stop_between_stages(stop)
            announce(f"{number} of {len(cells)}: {cell.variant}, seed {cell.seed}")
            evaluation = _judge(cell, out, threads, progress, announce, stop)
            variants.setdefault(cell.variant, {})[str(cell.seed)] = kept(evaluation)
            open_cells.discard((cell.variant, str(cell.seed)))
            if not open_cells:
                _write(result, out)
    return result


def table(result: Mapping[str, Any]) -> str:
    """Lay out the mean of every variant as Markdown: each suite's leading metric, and its change."""
    variants: Mapping[str, Mapping[str, Any]] = result["variants"]
    first = next(iter(next(iter(variants.values())).values()))
    suites = [(name, suite["leading"]) for name, suite in suites_in_order(first)]
    heads = [f"{name}: {metric}" for name, metric in suites]
    lines = [
        f"`{result['command']}` ({say_machine(result['machine'])}):",
        "",
        "| variant | seeds | " + " | ".join(heads) + " |",
        "|---|---:|" + "---:|" * len(heads),
    ]
    for variant, seeds in variants.items():
        cells = [_mean(seeds, name, metric) for name, metric in suites]
        lines.append(f"| {variant} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def slug(name: str) -> str:
    """Turn a variant's name into a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "variant"


def _judge(
    cell: Cell,
    out: Path,
    threads: int | None,
    progress: OnProgress,
    announce: Callable[[str], None],
    stop: threading.Event,
) -> dict[str, Any]:
    made, folder = out / cell.made, out / cell.folder
    make_folder(made)
    run_recipe(cell.recipe, made, progress=progress, announce=announce)
    stop_between_stages(stop)
    link_records(made, folder)
    train_recipe(cell.recipe, folder, threads=threads, progress=progress, announce=announce)
    stop_between_stages(stop)
    return evaluate_recipe(
        cell.recipe, folder, threads=threads, answers=out / ANSWERS, progress=progress, announce=announce
    )


def _clear(cells: Sequence[Cell], out: Path) -> None:
    """Remove what a former sweep made of these cells, before the first is made again: an interrupted call can go on."""
    try:
        for folder in dict.fromkeys(out / name for cell in cells for name in (cell.made, cell.folder)):
            if folder.is_dir():
                with RunLock(folder):
                    clear_run(folder)
        for path in (*(out / name for name in RESULTS), *(out / ANSWERS).glob("*.jsonl")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(out, error) from error


def _write(result: Mapping[str, Any], out: Path) -> None:
    data = json.dumps(result, indent=1, ensure_ascii=False)
    for name, text in zip(RESULTS, (f"{data}\n", f"{table(result)}\n", figure(result["variants"])), strict=True):
        write_atomically(out / name, text.encode())


def _written(path: Path) -> set[tuple[str, str]]:
    """List the variants and seeds that a former `sweep.json` holds; none where it can't be read."""
    try:
        held = json.loads(path.read_bytes())["variants"]
        return {(variant, seed) for variant, seeds in held.items() for seed in seeds}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def link_records(made: Path, folder: Path) -> None:
    """Put a run's records into another folder, without copying their bytes where the file system has hard links.

    Raises:
        StoreError: the folder can't be written.
    """
    manifest = folder / MANIFEST_NAME
    try:
        held = (made / MANIFEST_NAME).read_bytes()
        if manifest.exists() and manifest.read_bytes() == held:
            return
        make_folder(folder)
        for name in ("shards", "rejects"):
            shutil.rmtree(folder / name, ignore_errors=True)
            if (made / name).is_dir():
                shutil.copytree(made / name, folder / name, copy_function=link_or_copy)
    except OSError as error:
        raise disk_error(folder, error) from error
    write_atomically(manifest, held)


def _changed(recipe: Recipe, values: Mapping[str, Any], place: str) -> Recipe:
    data = deepcopy(dict(recipe.data))
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        at = data
        for key in parents:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                raise RecipeError(f"{place}: set: {dotted}: {key} is no section of the recipe")
        at[last] = value
    try:
        return recipe.replaced(**data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        said = explain_fault(fault, tuple(fault["loc"]), type(recipe.sections))
        raise RecipeError(f"{place}: set: {said}") from error


def _mean(seeds: Mapping[str, Any], suite: str, metric: str) -> str:
    """Say the mean over seeds, and the smallest and largest change where there are several."""
    found = list(_comparisons(seeds, suite, metric))
    if not found:
        return "-"
    base, tuned, change = (sum(one[name] for one in found) / len(found) for name in ("base", "tuned", "change"))
    changes = sorted(one["change"] for one in found)
    ends = f"{changes[0]:+.1f} to {changes[-1]:+.1f}"
    if len(found) == 1:
        confidence = next(iter(seeds.values()))["confidence"]
        ends = f"{say_confidence(confidence)} {found[0]['low']:+.1f} to {found[0]['high']:+.1f}"
    return f"{base:.1f} → {tuned:.1f} ({change:+.1f}; {ends})"


def _comparisons(seeds: Mapping[str, Any], suite: str, metric: str) -> Iterator[Mapping[str, Any]]:
    for evaluation in seeds.values():
        held = evaluation["suites"].get(suite, {}).get("metrics", {})
        if metric in held:
            yield held[metric]
