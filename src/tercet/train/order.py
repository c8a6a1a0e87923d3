"""Which rows make a step: a pure function of the step's number, so that a resumed training sees the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tercet.errors import UsageError
from tercet.train.task import Row, TrainingData

BUCKET = 32  # micro-batches sorted by size together: little padding, and still a shuffled pass


@dataclass(frozen=True)
class Part:
    """One micro-batch: row numbers of the domain and of replay, and its shares of the step's units.

    A share is of the domain's, of replay's, and of both together: what a mean over each counts for in the step's.
    """

    rows: tuple[int, ...]
    replay: tuple[int, ...]
    own_share: float
    replay_share: float
    share: float


class Order:
    """The micro-batches of every step, `accumulate` of them, each of `micro_batch` rows or within `budget`.

    A pass uses every row once before one comes up again. `replay` is the share of general rows in a micro-batch, kept
    on average where it isn't a whole number.
    """

    def __init__(
        self, data: TrainingData, *, micro_batch: int, budget: float | None, accumulate: int, replay: float, seed: int
    ) -> None:
        self.data, self.micro_batch, self.budget, self.num_micros = data, micro_batch, budget, accumulate
        self.per_row = replay / (1 - replay) if data.replay else 0.0  # general rows beside each row of the domain
        self.seed = seed
        self._passes: dict[tuple[str, int], list[int]] = {}
        self._batches: list[tuple[int, ...]] = []  # with a budget: the micro-batches so far, pass after pass
        self._before = [0]  # rows in the micro-batches before each of them
        self._num_passes = 0

    def step(self, step: int, processes: int = 1, halvings: int = 0) -> list[Part]:
        """Give the micro-batches of a step: at least one a process, each halved `halvings` times.

        Raises:
            UsageError: the step has fewer rows than there are processes.
        """
        micros = [self._micro(step * self.num_micros + micro) for micro in range(self.num_micros)]
        if sum(len(rows) for rows, _ in micros) < processes:
            raise UsageError(
                f"train.micro_batch x train.accumulate: a step has {sum(len(rows) for rows, _ in micros)} rows for "
                f"{processes} processes; raise train.accumulate to {processes} or more"
            )
        while len(micros) < processes:
            largest = max(range(len(micros)), key=lambda at: len(micros[at][0]))
            micros[largest : largest + 1] = _halved(*micros[largest])
        for _ in range(halvings):
            micros = [half for micro in micros for half in _halved(*micro)]
        units = [(_units(self.data.rows, rows), _units(self.data.replay, replay)) for rows, replay in micros]
        own, general = (sum(some) for some in zip(*units, strict=True))
        return [
            Part(rows, replay, mine / own, other / general if general else 0.0, (mine + other) / (own + general))
            for (rows, replay), (mine, other) in zip(micros, units, strict=True)
        ]

    def padding(self, parts: Sequence[Part]) -> tuple[float, float]:
        """Give the size of all rows in `parts`, and the share of what is computed that is padding."""
        real = padded = 0.0
        for part in parts:
            for rows, numbers in ((self.data.rows, part.rows), (self.data.replay, part.replay)):
                sizes = [rows[at].size for at in numbers]
                real += sum(sizes)
                padded += len(sizes) * (self.data.padded_to or max(sizes, default=0))
        return real, 1 - real / padded if padded else 0.0

    def _micro(self, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.budget is None:
            before, after = count * self.micro_batch, (count + 1) * self.micro_batch
            rows = self._walk("own", len(self.data.rows), before, after)
        else:
            rows, before = self._within_budget(count)
            after = before + len(rows)
        first, end = int(before * self.per_row), int(after * self.per_row)
        return rows, self._walk("replay", len(self.data.replay), first, end)

    def _walk(self, what: str, total: int, first: int, end: int) -> tuple[int, ...]:
        """Walk through a fresh permutation per pass, so that every row is used equally often."""
        places = (divmod(position, total) for position in range(first, end))
        return tuple(self._permutation(what, at_pass, total)[place] for at_pass, place in places)

    def _permutation(self, what: str, at_pass: int, total: int) -> list[int]:
        key = (what, at_pass)
        if key not in self._passes:
            if len(self._passes) > 8:
                self._passes.clear()
            order = list(range(total))
            random.Random(f"{self.seed}/{what}/{at_pass}").shuffle(order)
            self._passes[key] = order
        return self._passes[key]

    def _within_budget(self, count: int) -> tuple[tuple[int, ...], int]:
        """Give a micro-batch, and how many rows came before it."""
        while len(self._batches) <= count:
            order = self._permutation("own", self._num_passes, len(self.data.rows))
            batches = bucketed(order, self.data.rows, self.budget or 1, self.data.padded_to)
            random.Random(f"{self.seed}/batches/{self._num_passes}").shuffle(batches)
            self._batches += batches
            self._before += [self._before[-1] + done for done in accumulate(len(rows) for rows in batches)]
            self._num_passes += 1
        return self._batches[count], self._before[count]


def _units(rows: Sequence[Row], numbers: Sequence[int]) -> int:
    return sum(rows[at].units for at in numbers)


def bucketed(order: Sequence[int], rows: Sequence[Row], budget: float, padded_to: float = 0) -> list[tuple[int, ...]]:
    """Cut a shuffled pass into batches of rows alike in size, each at most `budget` with its padding.

    A row larger than the budget is a batch of its own.
    """
    mean = sum(padded_to or rows[at].size for at in order) / max(1, len(order))
    bucket = max(1, round(BUCKET * budget / max(1.0, mean)))
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), bucket):
        held: list[int] = []
        for at in sorted(order[start : start + bucket], key=lambda at: rows[at].size):
            if held and (len(held) + 1) * (padded_to or rows[at].size) > budget:
                batches.append(tuple(held))
                held = []
            held.append(at)
        batches.append(tuple(held))
    return batches


def _halved(rows: tuple[int, ...], replay: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut a micro-batch in two; one row stays whole."""
    if len(rows) < 2:
        return [(rows, replay)]
    middle, at = len(rows) // 2, len(replay) // 2
    return [(rows[:middle], replay[:at]), (rows[middle:], replay[at:])]
