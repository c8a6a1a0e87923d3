"""Two trainings on one machine, each in a process of its own, that take turns: what the trainers' benchmarks share.

A side's standard output carries JSON lines: what was prepared, each segment's seconds and amount (of speech, of
tokens), and last what it learned. A line on standard input starts the next segment, so that the other side can have
the machine in between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Said = dict[str, Any]


class Segments:
    """Within a side: counts what was trained on, and waits for leave after every `length` steps."""

    def __init__(self, length: int) -> None:
        self.length, self.amount, self.steps, self.started = length, 0.0, 0, 0.0
        self.wire = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a library prints isn't part of the talk

    def say(self, **values: Any) -> None:
        """Send one line and wait for leave to go on."""
        self.wire.write(json.dumps(values) + "\n")
        self.wire.flush()
        if not sys.stdin.readline():
            raise SystemExit("the benchmark is gone")
        self.amount, self.started = 0.0, time.perf_counter()

    def stepped(self, amount: float) -> None:
        """Note one optimiser step over so much, padding and gaps left out."""
        self.amount += amount
        self.steps += 1
        if self.steps % self.length == 0:
            self.say(seconds=time.perf_counter() - self.started, amount=self.amount)


class Side:
    """A side seen from the benchmark: it goes on only when asked."""

    def __init__(self, script: Path, name: str, threads: int, **options: Any) -> None:
        command = [sys.executable, str(script), name, "--threads", str(threads)]
        command += [part for option, value in options.items() for part in (f"--{option}", str(value))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def hear(self) -> Said:
        """Wait for what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with {self.process.wait()}")
        said: Said = json.loads(line)
        return said

    def go(self) -> Said:
        """Let it go on, and wait."""
        self.leave()
        return self.hear()

    def leave(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


def take_turns(sides: Mapping[str, Side], count: int, unit: str) -> tuple[dict[str, list[Said]], dict[str, Said]]:
    """Let two sides train `count` segments each, in ABBA order; give each side's segments and what it said last."""
    segments: dict[str, list[Said]] = {name: [] for name in sides}
    order = list(sides)
    for number in range(count):
        for name in order if number % 2 == 0 else reversed(order):
            segments[name].append(sides[name].go())
            print(f"{name:6} {rate(segments[name][-1]):8.2f} {unit} per s", flush=True)
    ended = {name: side.go() for name, side in sides.items()}
    for side in sides.values():
        side.leave()
        side.process.wait()
    return segments, ended


def rate(segment: Said, more_seconds: float = 0.0) -> float:
    """Give the amount per second of a segment that took `more_seconds` on top."""
    return float(segment["amount"] / (segment["seconds"] + more_seconds))


def summed_up(ratios: list[float]) -> dict[str, Any]:
    """Give the median of paired ratios with the bootstrap's 95 %."""
    held = np.array(ratios)
    draws = np.random.default_rng(0).integers(0, len(held), (4000, len(held)))
    low, high = np.quantile(np.median(held[draws], axis=1), (0.025, 0.975))
    return {"median": float(np.median(held)), "low": float(low), "high": float(high), "pairs": ratios}


def compared(segments: Mapping[str, list[Said]], prepare_seconds: Mapping[str, float]) -> dict[str, Any]:
    """Compare the first side with the second, pair by pair: with preparation spread over the segments, and without.

    The first segment of each warms up and doesn't count.
    """
    first, second = segments
    count = len(segments[first])
    timed = list(zip(segments[first][1:], segments[second][1:], strict=True))
    share = {name: seconds / count for name, seconds in prepare_seconds.items()}
    rates = [(rate(a, share[first]), rate(b, share[second])) for a, b in timed]
    return {
        "ratio": summed_up([a / b for a, b in rates]),
        "ratio_of_steps_alone": summed_up([rate(a) / rate(b) for a, b in timed]),
        "per_second": {name: float(np.median([pair[at] for pair in rates])) for at, name in enumerate(segments)},
        "prepare_seconds": dict(prepare_seconds),
    }
