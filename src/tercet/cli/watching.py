"""Progress on stderr: a bar with rate and time left on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from tercet.cli.output import note

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tercet.pipeline.progress import Progress

LINE_SECONDS = 5.0  # a log line at most this often, per stage


class Watching:
    """Show the progress that a long task reports: `with Watching() as watch: work(progress=watch)`."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}
        self._done: dict[str, int] = {}

    def __enter__(self) -> Watching:
        if sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Take one step into account."""
        if self._bars is not None:
            self._draw(self._bars, progress)
        else:
            self._log(progress)

    def _draw(self, bars: Bars, progress: Progress) -> None:
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total or None, note="")
        bars.update(task, completed=progress.done, total=progress.total or None, note=progress.note)

    def _log(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done < self._done.get(progress.stage, 0):  # the stage begins again, with another seed
            del self._started[progress.stage]
            self._said.pop(progress.stage, None)
        self._done[progress.stage] = progress.done
        began, first = self._started.setdefault(progress.stage, (now, progress.done))
        is_finished = progress.done >= progress.total
        if not is_finished and now - self._said.get(progress.stage, began) < LINE_SECONDS:
            return
        self._said[progress.stage] = now
        note(describe(progress, now - began, progress.done - first))


def describe(progress: Progress, seconds: float, done: int) -> str:
    """Say one step as a line; the rate is over `done` units in `seconds`."""
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    line = f"{progress.stage}: {progress.done:,} of {progress.total:,}{share}"
    if seconds > 0 and done > 0:
        rate = done / seconds
        left = max(progress.total - progress.done, 0) / rate
        line += f", {rate:,.1f}/s" + (f", {duration(left)} left" if left else "")
    return line + (f", {progress.note}" if progress.note else "")


def duration(seconds: float) -> str:
    """Write seconds as people say them: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:,.1f}/s" if speed else "", style="progress.data.speed")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
