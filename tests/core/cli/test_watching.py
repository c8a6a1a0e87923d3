"""Progress without a terminal: plain lines, and a stage that begins again is timed anew."""

from tercet.cli.watching import Watching
from tercet.pipeline.progress import Progress


def test_a_stage_that_begins_again_is_timed_from_there(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 1000.0, 1010.0])
    monkeypatch.setattr("tercet.cli.watching.time.monotonic", lambda: next(clock))
    with Watching() as watch:
        watch(Progress("speak", 0, 100))
        watch(Progress("speak", 100, 100))
        watch(Progress("speak", 0, 100))  # the next seed
        watch(Progress("speak", 50, 100))
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == [
        "speak: 100 of 100 (100%), 10.0/s",
        "speak: 50 of 100 (50%), 5.0/s, 10 s left",
    ]
