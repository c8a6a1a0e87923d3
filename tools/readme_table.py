"""Write the README's result table from committed runs: an evaluation, what the demo cost, and several seeds.

Copy a run's `evaluation.json` and `timings.json` to benchmarks/results/ as demo-evaluation.json and
demo-timings.json, and the `seeds.json` of `tercet bench demo` as demo-seeds.json, then run this file. The README holds
no number that isn't in those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.evaluate.layout import metrics_in_order, suites_in_order
from tercet.evaluate.seeds import table
from tercet.machine import say_machine

REPOSITORY = Path(__file__).parents[1]
EVALUATION = REPOSITORY / "benchmarks" / "results" / "demo-evaluation.json"
SEEDS = REPOSITORY / "benchmarks" / "results" / "demo-seeds.json"
TIMINGS = REPOSITORY / "benchmarks" / "results" / "demo-timings.json"
BEGIN, END = "<!-- results:begin (python tools/readme_table.py) -->", "<!-- results:end -->"


def committed() -> str:
    """Write the section from the committed files."""
    seeds = json.loads(SEEDS.read_text()) if SEEDS.is_file() else None
    return section(json.loads(EVALUATION.read_text()), json.loads(TIMINGS.read_text()), seeds)


def section(evaluation: Mapping[str, Any], timings: Mapping[str, Any], seeds: Mapping[str, Any] | None) -> str:
    """Write decision, lift and costs as Markdown, then the seeds where they were run."""
    lines = [
        f"`{timings['command']}` printed this ({say_machine(timings['machine'])}):",
        "",
        f"**Decision: {evaluation['decision']['verdict']}**",
        "",
        *lift(evaluation),
        "",
        *costs(timings),
    ]
    if seeds is not None:
        lines += ["", *main_rows(table(seeds).splitlines())]
    return "\n".join(lines)


def main_rows(lines: Sequence[str]) -> list[str]:
    """Keep of the seeds' table what was aimed at: names where a set has any, ordinary words elsewhere."""
    named = {cells[1] for cells in map(_cells, lines) if len(cells) > 2 and cells[2] == "B-WER"}
    kept = []
    for line in lines:
        cells = _cells(line)
        measure = cells[2] if len(cells) > 2 else ""
        if measure in {"", "measure", "---", "B-WER"} or (measure == "WER" and cells[1] not in named):
            kept.append(line)
    return kept


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def lift(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Lay out each suite's metrics, base against tuned, in points with the change's interval."""
    yield f"| set | metric | base | tuned | change ({evaluation['confidence']:.0%} interval) | items | sources |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for _, suite in suites_in_order(evaluation):
        for metric, held in metrics_in_order(suite):
            change = f"{held['change']:+.1f} ({held['low']:+.1f} to {held['high']:+.1f})"
            numbers = [f"{held['base']:.1f}", f"{held['tuned']:.1f}", change, str(held["items"]), str(held["sources"])]
            yield f"| {suite['title']} | {metric} | " + " | ".join(numbers) + " |"


def costs(timings: Mapping[str, Any]) -> Iterator[str]:
    """Lay out the minutes of each step."""
    steps = timings["minutes"]
    yield "| " + " | ".join([*steps, "total", "peak memory"]) + " |"
    yield "|" + "---:|" * (len(steps) + 2)
    minutes = [f"{value:.1f} min" for value in [*steps.values(), timings["total_minutes"]]]
    yield "| " + " | ".join([*minutes, f"{timings['peak_gib']:.1f} GiB"]) + " |"


def with_section(readme: str, text: str) -> str:
    """Put the section between its marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md: the marks {BEGIN} and {END} are missing; put them where the results go")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> int:
    """Write the section into the README."""
    missing = [path for path in (EVALUATION, TIMINGS) if not path.is_file()]
    if missing:
        print(f"{missing[0]}: no such file; run make demo and copy its results there", file=sys.stderr)
        return 1
    path = REPOSITORY / "README.md"
    path.write_text(with_section(path.read_text(), committed()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
