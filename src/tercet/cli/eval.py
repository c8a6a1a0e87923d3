"""`tercet eval`: base against tuned on frozen suites, and the decision with its numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tercet.cli.output import General, Json, Out, RecipePath, emit, note, show, table, with_general
from tercet.cli.watching import Watching
from tercet.errors import UsageError

if TYPE_CHECKING:
    from tercet.recipe import Recipe

NUMBERS = ("base", "tuned", "change", "interval", "items", "sources", "detects")
AdapterPath = Annotated[Path | None, typer.Option("--adapter", help="Another adapter's folder. [default: the run's]")]


def command(  # noqa: PLR0913, PLR0917 - the options of a verb
    recipe: RecipePath,
    out: Out = None,
    adapter: AdapterPath = None,
    general: General = None,
    scale: Annotated[
        str, typer.Option(help="Judge at this scale (1: as trained); several, with commas: find the largest that fits.")
    ] = "",
    sweep: Annotated[
        Path | None, typer.Option("--sweep", help="A file of variants: run, train and judge each.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Decode again; with --sweep: make all anew.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch. [default: OMP_NUM_THREADS, or cores]")] = None,
    as_json: Json = False,
) -> None:
    """Compare the adapter with its base on frozen suites, and decide.

    With --adapter, --scale or --sweep the run's own evaluation.json stays as it is.
    """
    from tercet.recipe import load_recipe

    loaded = with_general(load_recipe(recipe), general)
    scales = _scales(scale)
    if sweep is not None:
        if adapter or scales:
            raise UsageError("--sweep trains its own adapters: leave out --adapter and --scale")
        options = {"--sweep": sweep, "--general": general, "--out": out, "--threads": threads}
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        spelled = shlex.join(["tercet", "eval", str(recipe), *given])
        _sweep(loaded, sweep, out, threads, fresh=fresh, command=spelled, as_json=as_json)
    elif len(scales) > 1:
        if adapter or fresh:
            raise UsageError("several scales are of the run's own adapter: leave out --adapter and --fresh")
        _find_scale(loaded, out, scales, threads, as_json=as_json)
    else:
        from tercet.evaluate.run import evaluate_recipe

        one = scales[0] if scales else None
        with Watching() as watch:
            result = evaluate_recipe(
                loaded, out, adapter=adapter, scale=one, fresh=fresh, threads=threads, progress=watch, announce=note
            )
        if as_json:
            emit(result)
        else:
            show(*tables(result), *said(result["decision"]))


def _scales(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(
            f"--scale {text!r}: numbers from 0 to 1, with commas between; for example 1,0.75,0.5"
        ) from error
    if text and not found:
        raise UsageError(f"--scale {text!r}: names no scale; for example 1,0.75,0.5")
    if any(not 0 <= one <= 1 for one in found):
        raise UsageError(f"--scale {text!r}: a scale lies from 0 to 1")
    return found


def _sweep(
    recipe: Recipe, sweep: Path, out: Path | None, threads: int | None, *, fresh: bool, command: str, as_json: bool
) -> None:
    from tercet.evaluate.sweep import run_sweep
    from tercet.evaluate.sweep import table as lay_out
    from tercet.pipeline.run import default_run_dir

    folder = out or default_run_dir(recipe).with_name(f"{recipe.name}-{sweep.stem}")
    with Watching() as watch:
        result = run_sweep(
            recipe, sweep, folder, fresh=fresh, threads=threads, command=command, progress=watch, announce=note
        )
    if as_json:
        emit(result)
    else:
        show(lay_out(result), f"in {folder}: sweep.json, sweep.md, sweep.svg")


def _find_scale(recipe: Recipe, out: Path | None, scales: list[float], threads: int | None, *, as_json: bool) -> None:
    from tercet.evaluate.scales import find_scale

    with Watching() as watch:
        result = find_scale(recipe, scales, out, threads=threads, progress=watch, announce=note)
    if as_json:
        emit(result)
        return
    columns = ["scale", "primary", "general set", "chosen on", "shown on"]
    rows = table(f"change in points; allowed on the general set: +{result['margin']:g}", columns, numeric=["scale"])
    for row in result["scales"]:
        for name, found in row["chosen_on"].items():
            rows.add_row(f"{row['scale']:g}", _say(row["primary"]), name, _say(found), _say(row["shown_on"].get(name)))
    chosen = f"largest scale within the margin: {result['chosen']:g}; keep it by train.lora_scale, then: tercet train"
    none = "no scale above 0 lies within the margin; try smaller ones, or train again with a larger train.replay"
    show(rows, chosen if result["chosen"] else none)


def _say(found: Mapping[str, float] | None) -> str:
    return f"{found['change']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})" if found else "-"


def tables(evaluation: Mapping[str, Any]) -> Iterator[Any]:
    """Lay out every suite's comparisons, then the plain rates."""
    from tercet.evaluate.layout import metrics_in_order, rates_of, say_confidence, suites_in_order

    interval = f"{say_confidence(evaluation['confidence'])} interval"
    columns = ["suite", "role", "metric", *(interval if name == "interval" else name for name in NUMBERS)]
    compared = table(
        "points; lower is better; detects: the smallest change the suite could show", columns, numeric=columns[3:]
    )
    rates = table("rates", ["suite", "rate", "base", "tuned"], numeric=["base", "tuned"])
    for name, suite in suites_in_order(evaluation):
        for metric, held in metrics_in_order(suite):
            compared.add_row(name, suite["role"], metric, *_numbers(held))
        for rate, base, tuned in rates_of(suite):
            rates.add_row(name, rate, f"{base:.2f}", f"{tuned:.2f}")
    yield compared
    if rates.row_count:
        yield rates


def said(decision: Mapping[str, Any]) -> Iterator[str]:
    """Say the decision, and each rule with its numbers."""
    yield f"decision: {decision['verdict']}"
    yield from (f"  {reason}" for reason in decision["reasons"])


def _numbers(held: Mapping[str, Any]) -> list[str]:
    return [
        f"{held['base']:.2f}",
        f"{held['tuned']:.2f}",
        f"{held['change']:+.2f}",
        f"{held['low']:+.2f} to {held['high']:+.2f}",
        f"{held['items']:,}",
        f"{held['sources']:,}",
        f"{held['detectable']:.2f}",
    ]
