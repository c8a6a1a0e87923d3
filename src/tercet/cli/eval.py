"""`tercet eval`: base against tuned on frozen suites, and the decision with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tercet.cli.output import General, Json, Out, RecipePath, emit, note, show, table, with_general
from tercet.cli.watching import Watching

NUMBERS = ("base", "tuned", "change", "interval", "items", "sources", "detects")
AdapterPath = Annotated[Path | None, typer.Option("--adapter", help="Another adapter's folder. [default: the run's]")]


def command(
    recipe: RecipePath,
    out: Out = None,
    adapter: AdapterPath = None,
    general: General = None,
    scale: Annotated[float | None, typer.Option(min=0, help="Judge the adapter at this scale; 1: as trained.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Decode again what was decoded before.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch. [default: OMP_NUM_THREADS, or cores]")] = None,
    as_json: Json = False,
) -> None:
    """Compare the adapter with its base on frozen suites, and decide.

    With --adapter or --scale the result is shown and not written into the run.
    """
    from tercet.evaluate.run import evaluate_recipe
    from tercet.recipe import load_recipe

    loaded = with_general(load_recipe(recipe), general)
    with Watching() as watch:
        result = evaluate_recipe(
            loaded, out, adapter=adapter, scale=scale, fresh=fresh, threads=threads, progress=watch, announce=note
        )
    if as_json:
        emit(result)
    else:
        show(*tables(result), *said(result["decision"]))


def tables(evaluation: Mapping[str, Any]) -> Iterator[Any]:
    """Lay out every suite's comparisons, then the plain rates."""
    from tercet.evaluate.layout import metrics_in_order, rates_of, suites_in_order

    interval = f"{evaluation['confidence']:.0%} interval"
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
