"""Write the README's result tables from committed runs: the demo, its seeds, other recipes, and the trainers' race.

Copy a run's `evaluation.json` and `timings.json` to benchmarks/results/ as demo-evaluation.json and demo-timings.json,
and the `seeds.json` of `tercet bench demo` as demo-seeds.json; `python -m tools.recipes` writes recipe-<name>.json
there, and benchmarks/training/ its training-<name>.json. The `sweep.json` of recipes/pharmacy-ablations.yaml goes there
as ablations.json, and into docs/whisper-lora.md. Then run this file. README and page hold no number that isn't in
those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.evaluate import sweep
from tercet.evaluate.layout import metrics_in_order, suites_in_order
from tercet.evaluate.seeds import table
from tercet.machine import say_machine

REPOSITORY = Path(__file__).parents[1]
EVALUATION = REPOSITORY / "benchmarks" / "results" / "demo-evaluation.json"
SEEDS = REPOSITORY / "benchmarks" / "results" / "demo-seeds.json"
TIMINGS = REPOSITORY / "benchmarks" / "results" / "demo-timings.json"
RECIPES = [
    REPOSITORY / "benchmarks" / "results" / f"recipe-{name}.json" for name in ("support", "brand-vqa", "brand-pictures")
]
TRAINERS = [REPOSITORY / "benchmarks" / "results" / f"training-{name}.json" for name in ("whisper", "lm")]
ABLATIONS = REPOSITORY / "benchmarks" / "results" / "ablations.json"
README, PAGE = REPOSITORY / "README.md", REPOSITORY / "docs" / "whisper-lora.md"


def committed() -> str:
    """Write the section from the committed files."""
    return section(json.loads(EVALUATION.read_text()), json.loads(TIMINGS.read_text()))


def section(evaluation: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """Write decision, lift and costs as Markdown."""
    lines = [
        f"`{timings['command']}` printed this ({say_machine(timings['machine'])}):",
        "",
        f"**Decision: {evaluation['decision']['verdict']}**",
        "",
        *lift(evaluation),
        "",
        *costs(timings),
    ]
    return "\n".join(lines)


def committed_seeds() -> str:
    """Write the main rows of the seeds' table from the committed file."""
    return "\n".join(main_rows(table(json.loads(SEEDS.read_text())).splitlines()))


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
            numbers = [
                f"{held['base']:.1f}",
                f"{held['tuned']:.1f}",
                _change(held),
                str(held["items"]),
                str(held["sources"]),
            ]
            yield f"| {suite['title']} | {metric} | " + " | ".join(numbers) + " |"


def costs(timings: Mapping[str, Any]) -> Iterator[str]:
    """Lay out the minutes of each step."""
    steps = timings["minutes"]
    yield "| " + " | ".join([*steps, "total", "peak memory"]) + " |"
    yield "|" + "---:|" * (len(steps) + 2)
    minutes = [f"{value:.1f} min" for value in [*steps.values(), timings["total_minutes"]]]
    yield "| " + " | ".join([*minutes, f"{timings['peak_gib']:.1f} GiB"]) + " |"


def committed_recipes() -> str:
    """Write the table of the other recipes from the committed files."""
    return "\n".join(recipes({path.stem.removeprefix("recipe-"): json.loads(path.read_text()) for path in RECIPES}))


def recipes(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lay out what each measured recipe taught, what it changed on its general set, and how long it took."""
    machines = dict.fromkeys(say_machine(one["machine"]) for one in results.values())
    commands = ", ".join(f"`{one['command']}`" for one in results.values())
    yield from (f"{commands} ({'; '.join(machines)}):", "")
    yield "| recipe | metric | base | tuned | change (95% interval) | general set (95% interval) | decision | minutes |"
    yield "|---|---|---:|---:|---:|---:|---|---:|"
    for name, result in results.items():
        suites = suites_in_order(result)
        metric, primary = metrics_in_order(suites[0][1])[0]
        general = [
            f"{held['base']:.1f} → {held['tuned']:.1f}: {_change(held)}"
            for _, suite in suites
            if suite["role"] == "general"
            for _, held in metrics_in_order(suite)[:1]
        ]
        minutes = result["minutes"]
        took = f"{sum(minutes.values()):.1f} ({', '.join(f'{verb} {value:.1f}' for verb, value in minutes.items())})"
        yield (
            f"| {name} | {metric} | {primary['base']:.1f} | {primary['tuned']:.1f} | {_change(primary)} | "
            f"{'; '.join(general)} | {result['decision']['verdict']} | {took} |"
        )


def committed_trainers() -> str:
    """Write the table of the trainers from the committed files."""
    return "\n".join(trainers([json.loads(path.read_text()) for path in TRAINERS]))


def trainers(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lay out our training beside transformers' trainer: speed, memory, and what each learned."""
    machines = dict.fromkeys(result["machine"] for result in results)
    commands = ", ".join(f"`{result['command']}`" for result in results)
    yield from (f"{commands} ({'; '.join(machines)}):", "")
    yield "| training | per second, ours and theirs | ratio (95% interval) | steps alone | peak memory | afterwards |"
    yield "|---|---:|---:|---:|---:|---|"
    for result in results:
        ratio, alone, rates, memory = (
            result[name] for name in ("ratio", "ratio_of_steps_alone", "per_second", "peak_memory_gib")
        )
        if "wer" in result:
            name, unit, wer = "Whisper tiny.en", "s of speech", result["wer"]
            learned = f"WER {wer['ours']:.1f} and {wer['theirs']:.1f}, untrained {wer['untrained']:.1f}: {_change(wer)}"
        else:
            name, unit, loss = "SmolLM2-135M, short dialogs", "tokens", result["held_out_loss"]
            learned = f"loss {loss['ours']:.3f} and {loss['theirs']:.3f}"
        yield (
            f"| {name} | {rates['ours']:.0f} and {rates['theirs']:.0f} {unit} | "
            f"{ratio['median']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f}) | {alone['median']:.1f} | "
            f"{memory['ours']:.1f} and {memory['theirs']:.1f} GiB | {learned} |"
        )


def _change(held: Mapping[str, Any]) -> str:
    return f"{held['change']:+.1f} ({held['low']:+.1f} to {held['high']:+.1f})"


def ablations() -> str:
    """Write the table of the ablations from the committed sweep."""
    return sweep.table(json.loads(ABLATIONS.read_text()))


def with_section(page: str, name: str, text: str) -> str:
    """Put the section between the marks of that name."""
    first, last = f"<!-- {name}:begin (python tools/readme_table.py) -->", f"<!-- {name}:end -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"the marks {first} and {last} are missing; put them where the table goes")
    return f"{before}{first}\n{text}\n{last}{after}"


def main() -> int:
    """Write the sections into README and page."""
    missing = [path for path in (EVALUATION, TIMINGS, SEEDS, ABLATIONS, *RECIPES, *TRAINERS) if not path.is_file()]
    if missing:
        print(f"{missing[0]}: no such file; measure it and copy its result there", file=sys.stderr)
        return 1
    readme = with_section(README.read_text(), "results", committed())
    readme = with_section(readme, "recipes", committed_recipes())
    README.write_text(with_section(readme, "trainers", committed_trainers()))
    page = with_section(PAGE.read_text(), "seeds", committed_seeds())
    PAGE.write_text(with_section(page, "ablations", ablations()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
