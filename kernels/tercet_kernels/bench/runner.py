"""Run the cases in order, within the budget: parity first, then the time of whoever passed, all of a case in turn.

What goes wrong in one entry is written down and the run goes on: a failed parity, an error, a thing that takes too
long. Only a lost device ends a run early.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

from tercet_kernels.bench import timing
from tercet_kernels.bench.entries import MODES, Call, Case, Parity, Provider, dtype_name
from tercet_kernels.bench.report import Report, Row

ENTRY_SECONDS = 120.0  # for the first call of a provider, compilation included
MODE_SECONDS = 0.5  # of samples beyond the fewest, a mode
GRACE_SECONDS = 5.0  # beyond the budget, for what has begun
Jobs = dict[str, dict[str, list[Call]]]  # mode -> provider -> a call for each copy of the arguments


T = TypeVar("T")


class DeviceLost(Exception):
    """The device answers no more: nothing after it can be measured in this process."""


@dataclass
class Run:
    """A run in progress."""

    device: torch.device
    seed: int
    clock: timing.Clock
    report: Report
    bytes_per_second: float
    say: Callable[[str], None]
    num_wrong: int = 0
    order: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.order = random.Random(self.seed)
        self.stream = timing.stream_of(self.device)

    def cases(self, cases: Sequence[Case]) -> None:
        """Run all cases, or as many as there is time for; the others are written down as not reached."""
        for case in cases:
            if self.clock.left <= 0:
                self.report.add(_row(case) | {"status": "skipped", "note": "not reached within --minutes"})
                continue
            self.say(f"{case.name} ({self.clock.left:.0f} s left)")
            try:
                self._case(case)
            finally:
                self.report.write_json()
        self.report.write_json()

    def _case(self, case: Case) -> None:
        with timing.on_stream(self.stream):
            first = self._attempt(case, "all", partial(case.arguments, self.device, self.seed))
            if first is None:
                return
            copies = [first]
            passed = {}
            for provider in case.providers:
                parity = self._check(case, provider, copies[0])
                if parity:
                    passed[provider.name] = (provider, parity)
            if not passed:
                return
            self._make_copies(case, copies)
            jobs = self._build(case, [provider for provider, _ in passed.values()], copies)
            parities = {name: parity for name, (_, parity) in passed.items()}
            captures = {name: provider.captures for name, (provider, _) in passed.items()}
            self._measure(case, jobs, parities, captures)

    def _check(self, case: Case, provider: Provider, arguments: Any) -> Parity | None:
        if provider.obstacle:
            self._note(case, provider.name, "skipped", provider.obstacle)
            return None
        parity = self._attempt(case, provider.name, partial(provider.check, arguments))
        if parity is None or parity.holds:
            return parity
        self.num_wrong += 1
        said = f"{parity.what} is off by {parity.error:.3g}; the bar is {parity.bar:.3g}"
        self._note(case, provider.name, "wrong", said, parity)
        return None

    def _make_copies(self, case: Case, copies: list[Any]) -> None:
        """Add copies until they pass the cache, or the memory is full."""
        for number in range(1, timing.copies_for(case.argument_bytes, self.device)):
            try:
                copies.append(case.arguments(self.device, self.seed + number))
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                return

    def _build(self, case: Case, providers: Sequence[Provider], copies: Sequence[Any]) -> Jobs:
        jobs: Jobs = {}
        for provider in providers:
            calls = self._attempt(case, provider.name, partial(_build_all, provider, copies))
            for mode in calls[0] if calls else ():
                jobs.setdefault(mode, {})[provider.name] = [call[mode] for call in calls or ()]
        return dict(sorted(jobs.items(), key=lambda item: MODES.index(item[0])))

    def _measure(self, case: Case, jobs: Jobs, parities: Mapping[str, Parity], captures: Mapping[str, bool]) -> None:
        pool = torch.cuda.graph_pool_handle() if self.stream is not None else None
        for mode, of_provider in jobs.items():
            if self.stream is not None:
                make: dict[str, Callable[[], timing.Sampler]] = {
                    name: partial(timing.graph_sampler, calls, self.device, self.stream, pool)
                    for name, calls in of_provider.items()
                    if captures[name]
                }
                self._mode(case, mode, "yes", make, parities)
            make = {name: partial(timing.eager_sampler, calls, self.device) for name, calls in of_provider.items()}
            self._mode(case, mode, "no", make, parities)

    def _mode(
        self,
        case: Case,
        mode: str,
        graphs: str,
        makers: Mapping[str, Callable[[], timing.Sampler]],
        parities: Mapping[str, Parity],
    ) -> None:
        if self.clock.left <= 0:
            return
        fields = {"mode": mode, "graphs": graphs}
        samplers = {}
        for name, make in makers.items():
            sampler = self._attempt(case, name, make, fields)
            if sampler:
                samplers[name] = sampler
        take = partial(timing.take, samplers, MODE_SECONDS, self.clock, self.order)
        taken = self._attempt(case, "all", take, fields) or {}
        base = timing.quantile(taken[case.baseline], 0.5) if case.baseline in taken else None
        for name in [provider.name for provider in case.providers if provider.name in taken]:
            row = self._timed(case, name, mode, taken[name], base) | {"graphs": graphs}
            self.report.add(row | _parity_fields(parities[name]), taken[name])
            beside = f", {row['ratio']:.3f} x {case.baseline}" if row["ratio"] else ""
            kind = "device" if graphs == "yes" else "eager"
            self.say(f"  {mode:8} {kind:6} {name:18} {row['median_ms']:.4f} ms{beside}")

    def _timed(self, case: Case, provider: str, mode: str, samples: Sequence[float], base: float | None) -> Row:
        median = timing.quantile(samples, 0.5)
        row = _row(case) | {
            "provider": provider, "mode": mode, "status": "timed", "samples": len(samples), "median_ms": median,
            "p20_ms": timing.quantile(samples, 0.2), "p80_ms": timing.quantile(samples, 0.8),
            "baseline": case.baseline, "ratio": median / base if base else "",
        }  # fmt: skip
        if mode in case.flops:
            row["tflops"] = case.flops[mode] / median / 1e9
        traffic = case.traffic(provider, mode)
        if traffic is None:
            return row
        row["gb_per_s"] = traffic.moved / median / 1e6
        model = model_ms(traffic.moved, traffic.extra, base, self.bytes_per_second)
        if model is not None and provider != case.baseline:
            row["model_ms"], row["percent_of_model"] = model, 100 * model / median
        return row

    def _attempt(
        self, case: Case, provider: str, action: Callable[[], T], fields: Mapping[str, Any] | None = None
    ) -> T | None:
        """Return what `action` does; None, and a row that says how, where it fails."""
        limit = GRACE_SECONDS + max(0.0, min(ENTRY_SECONDS, self.clock.left))
        try:
            with timing.time_limit(limit):
                return action()
        except Exception as error:  # noqa: BLE001  any provider may raise anything; it becomes a row, and the run goes on
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            self._note(case, provider, "failed", said, fields=fields)
            self._hold_device(said)
        return None

    def _hold_device(self, said: str) -> None:
        """Raise DeviceLost where an error has taken the device with it."""
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise DeviceLost(f"the device is lost: {said}") from error

    def _note(
        self,
        case: Case,
        provider: str,
        status: str,
        note: str,
        parity: Parity | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        row = _row(case) | {"provider": provider, "status": status, "note": note} | dict(fields or {})
        self.report.add(row | (_parity_fields(parity) if parity else {}))
        self.say(f"  {status}: {provider}: {note}")


def _build_all(provider: Provider, copies: Sequence[Any]) -> list[Mapping[str, Call]]:
    return [provider.build(copy) for copy in copies]


def model_ms(moved: int, extra: int | None, base_ms: float | None, bytes_per_second: float) -> float | None:
    """Return the byte model's time: the baseline's own plus the extra bytes at the rate of a copy, or all bytes."""
    if extra is None:
        return 1e3 * moved / bytes_per_second
    return None if base_ms is None else base_ms + 1e3 * extra / bytes_per_second


def _row(case: Case) -> Row:
    return {
        "op": case.operator, "shape": case.shape, "m": case.m, "k": case.k, "n": case.n,
        "dtype": dtype_name(case.dtype), "rank": case.rank, "dropout": case.dropout,
    }  # fmt: skip


def _parity_fields(parity: Parity) -> Row:
    return {"parity_error": parity.error, "parity_bar": parity.bar, "parity_what": parity.what}
