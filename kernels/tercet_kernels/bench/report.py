"""Write what was measured: CSV after every measurement, JSON after every case, Markdown at the end."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = (
    "run", "op", "shape", "provider", "mode", "status", "graphs", "m", "k", "n", "dtype", "rank", "dropout",
    "median_ms", "p20_ms", "p80_ms", "samples", "baseline", "ratio", "gb_per_s", "tflops", "model_ms",
    "percent_of_model", "parity_error", "parity_bar", "parity_what", "device", "commit", "note",
)  # fmt: skip
CSV_NAME, JSON_NAME, MARKDOWN_NAME = "bench.csv", "bench.json", "bench.md"
Row = dict[str, Any]


class Report:
    """The rows of a run, on disk as they come: a run that is cut off keeps all it has measured."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.folder = folder
        self.head = dict(head)
        self.rows: list[Row] = []
        self.samples: dict[str, list[float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._begin_csv()
        self.write_json()

    def add(self, row: Row, samples: Sequence[float] = ()) -> None:
        """Append a row to the CSV at once; `samples` go to the JSON."""
        filled = {column: row.get(column, "") for column in COLUMNS}
        filled["run"], filled["device"], filled["commit"] = (self.head[key] for key in ("run", "device", "commit"))
        self.rows.append(filled)
        if samples:
            self.samples[key_of(filled)] = [round(sample, 6) for sample in samples]
        with (self.folder / CSV_NAME).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow({column: _short(value) for column, value in filled.items()})

    def write_json(self) -> None:
        """Put the whole run in place of the JSON before it, in one step."""
        whole = self.head | {"rows": self.rows, "samples_ms": self.samples}
        partial = self.folder / (JSON_NAME + ".partial")
        partial.write_text(json.dumps(_without_nan(whole), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.folder / JSON_NAME)

    def write_markdown(self) -> None:
        """Write the table."""
        (self.folder / MARKDOWN_NAME).write_text(markdown(self.head, self.rows), encoding="utf-8")

    def _begin_csv(self) -> None:
        path = self.folder / CSV_NAME
        if path.exists() and path.stat().st_size:
            with path.open(newline="", encoding="utf-8") as file:
                found = next(csv.reader(file), [])
            if tuple(found) != COLUMNS:
                raise ValueError(f"{path}: its columns aren't this version's; move it away or choose another --out")
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(COLUMNS)


def key_of(row: Mapping[str, Any]) -> str:
    """Name a measurement, the same in every run."""
    keys = ("op", "shape", "m", "k", "n", "dtype", "rank", "dropout", "provider", "mode", "graphs")
    return "|".join(_short(row[key]) for key in keys)


def markdown(head: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the run as Markdown: one table a case and mode, device time beside eager wall time."""
    lines = [f"`{head['command']}`", "", f"{head['device']}, torch {head['torch']}, triton {head['triton']}", ""]
    timed = [row for row in rows if row["status"] == "timed"]
    cases = list(dict.fromkeys(_case_of(row) for row in timed))
    for case in cases:
        some = [row for row in timed if _case_of(row) == case]
        *_, mode = case
        lines += [
            f"### {_title(some[0])}, {mode}", "",
            f"| provider | graph ms (p20-p80) | eager ms | / {some[0]['baseline']} | % of byte model | parity error |",
            "|---|---|---|---|---|---|",
        ]  # fmt: skip
        for provider in dict.fromkeys(row["provider"] for row in some):
            of_provider = {row["graphs"]: row for row in some if row["provider"] == provider}
            lines.append(_line(provider, of_provider))
        lines.append("")
    others = [row for row in rows if row["status"] != "timed"]
    if others:
        lines += ["### Not timed", ""]
        lines += [f"- {_title(row)}, {row['provider']}: {row['status']}: {row['note']}" for row in others]
    return "\n".join(lines) + "\n"


def _line(provider: str, of_provider: Mapping[str, Row]) -> str:
    graph, eager = of_provider.get("yes"), of_provider.get("no")
    one = graph or eager
    assert one is not None
    spread = f"{graph['median_ms']:.4f} ({graph['p20_ms']:.4f}-{graph['p80_ms']:.4f})" if graph else ""
    wall = f"{eager['median_ms']:.4f}" if eager else ""
    ratio = f"{one['ratio']:.3f}" if one["ratio"] else ""
    share = f"{one['percent_of_model']:.0f}" if one["percent_of_model"] else ""
    return f"| {provider} | {spread} | {wall} | {ratio} | {share} | {one['parity_error']:.1e} |"


def _case_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("op", "shape", "dtype", "rank", "dropout", "mode"))


def _title(row: Row) -> str:
    lora = f", r={row['rank']}, p={row['dropout']:g}" if row["rank"] else ""
    return f"{row['op']} {row['shape']} ({row['m']}, {row['k']}, {row['n']}) {row['dtype']}{lora}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _without_nan(value: Any) -> Any:
    """Write NaN and infinity as text: JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
