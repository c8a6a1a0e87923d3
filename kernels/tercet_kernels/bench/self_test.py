"""A compact test of every kernel on the device at hand, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from tercet_kernels.bench.entries import Case
from tercet_kernels.bench.timing import Clock, time_limit

SECONDS = 60.0  # for one kernel in one dtype, compilation included
SHARE = 0.3  # of the budget, at most: nearly all of it is compilation


def self_test(
    cases: Iterable[Case], device: torch.device, seed: int, clock: Clock, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Hold each of tercet's providers against its reference; return a line for each, and never raise for one.

    A result is "right", "wrong" (with its error), "failed" (with its message) or "skipped".
    """
    results = []
    last = (1 - SHARE) * clock.left
    for case in cases:
        arguments: Any = None
        for provider in case.providers:
            if not provider.name.startswith("tercet"):
                continue
            result: dict[str, Any] = {"case": case.name, "provider": provider.name}
            if provider.obstacle or clock.left <= last:
                result |= {
                    "status": "skipped",
                    "note": provider.obstacle or f"not reached within {SHARE:.0%} of --minutes",
                }
            else:
                try:
                    with time_limit(SECONDS):
                        arguments = case.arguments(device, seed) if arguments is None else arguments
                        parity = provider.check(arguments)
                    result |= {"status": "right" if parity.holds else "wrong", "error": parity.error}
                    result |= {"bar": parity.bar, "what": parity.what}
                except Exception as error:  # noqa: BLE001  whatever a kernel raises becomes a line of the result
                    note = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
                    result |= {"status": "failed", "note": note}
            results.append(result)
            if result["status"] in ("wrong", "failed"):
                say(f"  {result}")
    counts = {
        status: sum(result["status"] == status for result in results)
        for status in ("right", "wrong", "failed", "skipped")
    }
    say("self-test: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return results
