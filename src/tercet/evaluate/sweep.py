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
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tercet.errors import RecipeError
from tercet.evaluate.layout import suites_in_order
from tercet.evaluate.run import evaluate_recipe
from tercet.evaluate.seeds import kept, trained_alone
from tercet.evaluate.sweep_figure import figure
from tercet.files import write_atomically
from tercet.machine import describe_machine, say_machine
from tercet.pipeline.progress import OnProgress, silent
from tercet.pipeline.run import run_recipe
from tercet.recipe import Recipe, Section
from tercet.store.durable import make_folder
from tercet.store.manifest import MANIFEST_NAME
from tercet.train.run import train_recipe
from tercet.yaml_lines import read_yaml

VERSION = 1
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
        raise RecipeError(f"{located.place(keys)}: {'.'.join(map(str, keys))}: {fault['msg']}") from error
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
    command: str = "",
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Bring every variant to its evaluation, in `out`; an interrupted call goes on where it was.

    Returns what `out/sweep.json` then holds; `sweep.md` holds it as a table and `sweep.svg` as a picture. Raises what
    run, train and evaluate raise.
    """
    cells = read_sweep(sweep, recipe)
    variants: dict[str, dict[str, Any]] = {}
    result = {
        "version": VERSION,
        "command": command,
        "machine": describe_machine(),
        "recipe": recipe.name,
        "variants": variants,
    }
    for number, cell in enumerate(cells, 1):
        announce(f"{number} of {len(cells)}: {cell.variant}, seed {cell.seed}")
        evaluation = _judge(cell, out, progress, announce)
        variants.setdefault(cell.variant, {})[str(cell.seed)] = kept(evaluation)
        write_atomically(out / "sweep.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
        write_atomically(out / "sweep.md", (table(result) + "\n").encode())
        write_atomically(out / "sweep.svg", figure(variants).encode())
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


def _judge(cell: Cell, out: Path, progress: OnProgress, announce: Callable[[str], None]) -> dict[str, Any]:
    made = out / "data" / cell.recipe.digest[:16]
    folder = out / cell.folder
    make_folder(made)
    run_recipe(cell.recipe, made, progress=progress, announce=announce)
    link_records(made, folder)
    train_recipe(cell.recipe, folder, progress=progress, announce=announce)
    return evaluate_recipe(cell.recipe, folder, answers=out / "answers", progress=progress, announce=announce)


def link_records(made: Path, folder: Path) -> None:
    """Put a run's records into another folder without copying their bytes."""
    manifest = folder / MANIFEST_NAME
    if manifest.exists() and manifest.read_bytes() == (made / MANIFEST_NAME).read_bytes():
        return
    make_folder(folder)
    for name in ("shards", "rejects"):
        shutil.rmtree(folder / name, ignore_errors=True)
        if (made / name).is_dir():
            shutil.copytree(made / name, folder / name, copy_function=os.link)
    write_atomically(manifest, (made / MANIFEST_NAME).read_bytes())


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
        raise RecipeError(f"{place}: set: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _mean(seeds: Mapping[str, Any], suite: str, metric: str) -> str:
    """Say the mean over seeds, and the smallest and largest change where there are several."""
    found = list(_comparisons(seeds, suite, metric))
    if not found:
        return "-"
    base, tuned, change = (sum(one[name] for one in found) / len(found) for name in ("base", "tuned", "change"))
    changes = sorted(one["change"] for one in found)
    ends = f"{changes[0]:+.1f} to {changes[-1]:+.1f}" if len(found) > 1 else _interval(found[0])
    return f"{base:.1f} → {tuned:.1f} ({change:+.1f}; {ends})"


def _interval(found: Mapping[str, Any]) -> str:
    return f"95% {found['low']:+.1f} to {found['high']:+.1f}"


def _comparisons(seeds: Mapping[str, Any], suite: str, metric: str) -> Iterator[Mapping[str, Any]]:
    for evaluation in seeds.values():
        held = evaluation["suites"].get(suite, {}).get("metrics", {})
        if metric in held:
            yield held[metric]
