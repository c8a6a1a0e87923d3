"""The training log: a line of JSON a step, and a picture of it."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.files import disk_error, write_atomically
from tercet.train.tracking import Track

LOG = "log.jsonl"
CURVE = "curve.svg"
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 640, 240, 56, 24, 32


class Log:
    """Appends to the log of a training; the rows of steps that a killed training did after its checkpoint go first."""

    def __init__(self, folder: Path, done: int, track: Track | None = None, *, is_main: bool = True) -> None:
        self.path, self.track, self.is_main = folder / LOG, track, is_main
        if is_main and self.path.exists():
            kept = [row for row in read_log(folder) if row["step"] <= done]
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; a number that JSON has no word for (the norm of a step that overflowed) becomes null."""
        if not self.is_main:
            return
        row = {name: None if value in {math.inf, -math.inf} else value for name, value in row.items()}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise disk_error(self.path, error) from error
        if self.track is not None:
            self.track(row)

    def draw(self) -> None:
        """Draw the loss, and what was watched, beside the log."""
        rows = read_log(self.path.parent)
        loss = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        watched = [(row["step"], row["watched"]) for row in rows if "watched" in row]
        if loss:
            write_atomically(self.path.with_name(CURVE), curve(loss, watched).encode())


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a log's rows; a line that a kill tore is left out."""
    rows = []
    for line in (folder / LOG).read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def memory_gib() -> float:
    """Give the most memory that was in use so far: the GPU's where there is one, else the process's."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def curve(loss: Sequence[tuple[int, float]], watched: Sequence[tuple[int, float]]) -> str:
    """Draw the loss of each step with its moving mean, and the watched metric on a scale of its own, as SVG."""
    last = max(1, loss[-1][0])
    top = max(value for _, value in loss) or 1.0
    smooth, mean = [], loss[0][1]
    for step, value in loss:
        mean += (value - mean) * 0.1
        smooth.append((step, mean))
    lines = [
        f'<path d="{_path(loss, last, top)}" stroke="#9db4d3" fill="none"/>',
        f'<path d="{_path(smooth, last, top)}" stroke="#1d4f91" stroke-width="2" fill="none"/>',
        *(_label(LEFT - 6, _y(top * part, top) + 4, f"{top * part:.2g}", "end") for part in (0, 0.5, 1)),
        *(_label(_x(round(last * part), last), HEIGHT - 12, f"{round(last * part)}", "middle") for part in (0, 0.5, 1)),
        _label(LEFT + 8, 16, "loss by step, and its moving mean", "start", "#1d4f91"),
    ]
    if watched:
        most = max(value for _, value in watched) or 1.0
        lines.append(f'<path d="{_path(watched, last, most)}" stroke="#b3541e" stroke-width="2" fill="none"/>')
        lines += [
            f'<circle cx="{_x(step, last):.1f}" cy="{_y(value, most):.1f}" r="3" fill="#b3541e"/>'
            for step, value in watched
        ]
        lines.append(_label(WIDTH - RIGHT, 16, f"decoded errors per 100, up to {most:.3g}", "end", "#b3541e"))
    frame = f'<path d="M{LEFT} 24V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#777" fill="none"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="training curve"><rect width="100%" height="100%" fill="#fff"/>{frame}{"".join(lines)}</svg>\n'
    )


def _x(step: float, last: int) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * step / last


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 24) * value / top


def _path(points: Sequence[tuple[int, float]], last: int, top: float) -> str:
    return "M" + "L".join(f"{_x(step, last):.1f} {_y(value, top):.1f}" for step, value in points)


def _label(x: float, y: float, text: str, anchor: str, fill: str = "#444") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-family="sans-serif" font-size="12" fill="{fill}">{text}</text>'
