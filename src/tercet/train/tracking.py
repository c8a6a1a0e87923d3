"""The one optional tracker beside the local log: trackio, which keeps what it is told on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from tercet.errors import MissingExtra

Track = Callable[[Mapping[str, Any]], None]  # takes a row of the log


@contextmanager
def tracking(tracker: str, project: str, run: str, config: Mapping[str, Any]) -> Iterator[Track | None]:
    """Open the run of a tracker for the time of a training; None for "none".

    A training that goes on is the same run: `run` names it. Nothing leaves the machine unless the user's own
    environment tells trackio where to.

    Raises:
        MissingExtra: trackio isn't installed.
    """
    if tracker == "none":
        yield None
        return
    try:
        import trackio
    except ModuleNotFoundError as error:
        raise MissingExtra("train.tracker: trackio isn't installed; run: pip install trackio, or set none") from error
    with redirect_stdout(sys.stderr):  # it greets and takes leave on stdout, which is the command's own
        trackio.init(project, name=run, config=dict(config), resume="allow", embed=False)
    try:
        yield lambda row: trackio.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
    finally:
        with redirect_stdout(sys.stderr):
            trackio.finish()
