"""Draw a run, where matplotlib is present: what each provider costs beside the frozen linear."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tercet_kernels.bench.report import Row

PLOT_NAME = "bench-{op}.png"


def write_plots(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Draw one chart an operator; return what to say of it."""
    if not importlib.util.find_spec("matplotlib"):
        return ["no plots: matplotlib isn't installed; run: pip install matplotlib"]
    said = []
    for op in dict.fromkeys(row["op"] for row in rows):
        graphs = "yes" if any(row["graphs"] == "yes" for row in rows if row["op"] == op) else "no"
        some = [
            row for row in rows
            if row["op"] == op and row["ratio"] and row["graphs"] == graphs and row["mode"] in ("step", "call")
        ]  # fmt: skip
        if some:
            path = folder / PLOT_NAME.format(op=op)
            _bars(path, some, "device time" if graphs == "yes" else "wall time")
            said.append(f"drawn: {path}")
    return said


def _bars(path: Path, rows: Sequence[Row], kind: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no pyplot state
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(_label(row) for row in rows))
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    figure = Figure(figsize=(max(6.0, 1.1 * len(labels)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(providers)
    for number, provider in enumerate(providers):
        ratios = {_label(row): row["ratio"] for row in rows if row["provider"] == provider}
        places = [
            place + (number - len(providers) / 2) * width for place, label in enumerate(labels) if label in ratios
        ]
        axes.bar(places, [ratios[label] for label in labels if label in ratios], width, label=provider, align="edge")
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=7)
    axes.axhline(1.0, color="black", linewidth=0.5)
    axes.set_ylabel(f"{kind} / {rows[0]['baseline']}")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _label(row: Row) -> str:
    lora = f" r{row['rank']} p{row['dropout']:g}" if row["rank"] else ""
    return f"{row['shape']}{lora}"
