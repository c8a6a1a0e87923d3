"""Write the README's result table from a committed run: its evaluation and what the demo cost.

Copy a run's `evaluation.json` and `timings.json` to benchmarks/results/ as demo-evaluation.json and
demo-timings.json, then run this file. The README holds no number that isn't in those two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
EVALUATION = REPOSITORY / "benchmarks" / "results" / "demo-evaluation.json"
TIMINGS = REPOSITORY / "benchmarks" / "results" / "demo-timings.json"
BEGIN, END = "<!-- results:begin (python tools/readme_table.py) -->", "<!-- results:end -->"


def section(evaluation: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """Write decision, lift and costs as Markdown."""
    machine = timings["machine"]
    where = f"{machine['cores']} cores, {machine['memory_gib']} GiB, no GPU, Python {machine['python']}"
    lines = [
        f"`{timings['command']}` printed this ({where}):",
        "",
        f"**Decision: {evaluation['decision']['verdict']}**",
        "",
        *lift(evaluation["suites"]),
        "",
        *costs(timings),
    ]
    return "\n".join(lines)


def lift(suites: Mapping[str, Any]) -> Iterator[str]:
    """Lay out each suite's metrics, base against tuned, in points with the change's interval."""
    yield "| set | metric | base | tuned | change (95% interval) | items |"
    yield "|---|---|---:|---:|---:|---:|"
    for name, suite in suites.items():
        for metric, held in suite["metrics"].items():
            if isinstance(held, Mapping) and "change" in held:
                change = f"{held['change']:+.1f} ({held['low']:+.1f} to {held['high']:+.1f})"
                yield f"| {name} | {metric} | {held['base']:.1f} | {held['tuned']:.1f} | {change} | {held['items']} |"


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
    text = section(json.loads(EVALUATION.read_text()), json.loads(TIMINGS.read_text()))
    path.write_text(with_section(path.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
