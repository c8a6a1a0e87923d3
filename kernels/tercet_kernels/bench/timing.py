"""Take times: CUDA events around graphs, wall time around eager calls, providers of a case in turn.

A job is one provider in one mode, as one call per copy of the arguments; the copies together are larger than the L2
cache, so that no call finds its arguments there. A sample runs the copies a whole number of times over. Each round
takes one sample of every job, in shuffled order, so that a clock which drifts drifts for all alike.
"""

from __future__ import annotations

import gc
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tercet_kernels.bench.entries import Call

LEAST_SAMPLES, MOST_SAMPLES = 20, 100
SAMPLE_SECONDS = 1e-3
SLOW_SAMPLES, SLOW_SECONDS = 5, 8.0  # what takes longer than SLOW_SECONDS gets by with fewer
MOST_CALLS = 64  # of a copy, in a sample
WARM_UP_CALLS = 2
Sampler = Callable[[], Callable[[], float]]  # runs a sample; what it returns waits, and gives milliseconds a call


class OverTime(Exception):
    """Something took longer than it was allowed to; it has been left where it was."""


@dataclass
class Clock:
    """The hard budget of a run."""

    seconds: float
    started: float

    @classmethod
    def of_minutes(cls, minutes: float) -> Clock:
        """Start a clock now."""
        return cls(60 * minutes, time.monotonic())

    @property
    def left(self) -> float:
        """Return the seconds left."""
        return self.seconds - (time.monotonic() - self.started)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OverTime from within once `seconds` have passed; an alarm that was set before is set again after."""

    def stop(_signal: int, _frame: Any) -> None:
        raise OverTime(f"took longer than {seconds:.0f} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    before, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            signal.setitimer(signal.ITIMER_REAL, max(before - (time.monotonic() - began), 1e-3))


def stream_of(device: torch.device) -> Any:
    """Return the stream that everything timed runs on: graphs can't be captured on the default one."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def on_stream(stream: Any) -> Any:
    """Enter `stream`; on a CPU there is none."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def copies_for(argument_bytes: int, device: torch.device) -> int:
    """Return how many copies of the arguments pass the L2 cache four times over; at least two, at most 32."""
    if device.type != "cuda":
        return 2
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 50 << 20)
    return max(2, min(32, -(-4 * cache // max(argument_bytes, 1))))


def eager_sampler(calls: Sequence[Call], device: torch.device) -> Sampler:
    """Sample wall time: the host's work is in it wherever the device waits for the host."""
    repeats = _repeats(calls, device)

    def sample() -> Callable[[], float]:
        _wait(device)
        began = time.perf_counter()
        for _ in range(repeats):
            for call in calls:
                call()
        _wait(device)
        spent = 1e3 * (time.perf_counter() - began) / (repeats * len(calls))
        return lambda: spent

    return sample


def graph_sampler(calls: Sequence[Call], device: torch.device, stream: Any, pool: Any) -> Sampler:
    """Sample the device's time alone: one CUDA graph holds a call of each copy, events stand around its replays."""
    repeats = _repeats(calls, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        for call in calls:
            call()

    def sample() -> Callable[[], float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record(stream)
        for _ in range(repeats):
            graph.replay()
        end.record(stream)

        def milliseconds() -> float:
            end.synchronize()
            return float(start.elapsed_time(end)) / (repeats * len(calls))

        return milliseconds

    return sample


def take(samplers: Mapping[str, Sampler], seconds: float, clock: Clock, order: random.Random) -> dict[str, list[float]]:
    """Return the samples of each job in milliseconds a call.

    Runs LEAST_SAMPLES rounds, SLOW_SAMPLES where they take long, then more until `seconds` have passed; the budget ends
    it even before, after three rounds.
    """
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    names = list(samplers)
    began = time.monotonic()
    with _no_collection():
        for number in range(MOST_SAMPLES if names else 0):
            spent = time.monotonic() - began
            fewest = LEAST_SAMPLES if spent <= SLOW_SECONDS else SLOW_SAMPLES
            if number >= fewest and spent > seconds:
                break
            if number >= 3 and clock.left <= 0:
                break
            order.shuffle(names)
            pending = [(name, samplers[name]()) for name in names]
            for name, milliseconds in pending:
                samples[name].append(milliseconds())
    return samples


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the quantile of a sample, interpolated."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def copy_rate(device: torch.device) -> float:
    """Measure the bytes per second of a large copy, reads and writes counted: what the byte model divides by."""
    size = 1 << (30 if device.type == "cuda" else 25)
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    spent = []
    for _ in range(8):
        _wait(device)
        began = time.perf_counter()
        for _ in range(4):
            target.copy_(source)
        _wait(device)
        spent.append((time.perf_counter() - began) / 4)
    return 2 * size / quantile(spent[1:], 0.5)


def _repeats(calls: Sequence[Call], device: torch.device) -> int:
    """Warm up, and return how often to run all calls so that a sample takes SAMPLE_SECONDS."""
    for _ in range(WARM_UP_CALLS):
        for call in calls:
            call()
    _wait(device)
    began = time.perf_counter()
    for call in calls:
        call()
    _wait(device)
    once = time.perf_counter() - began
    return max(1, min(MOST_CALLS, round(SAMPLE_SECONDS / max(once, 1e-9))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
