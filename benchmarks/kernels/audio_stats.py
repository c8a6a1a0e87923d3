"""Statistics of clips on a CPU: `audio_stats` against the definition in torch, and against plain numpy on whole clips.

    python benchmarks/kernels/audio_stats.py    (about half a minute)

One thread. Compares in one process, in the order A B B A, and gives the median of the paired ratios with a bootstrap
interval. Statistics are held against one another before any timing. Results go to
benchmarks/results/kernels-audio-stats.json.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch count the cores

import argparse
import importlib.metadata
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from abba import abba

from tercet_kernels.audio_stats import audio_stats
from tercet_kernels.audio_stats.reference import audio_stats_reference

RESULTS = Path(__file__).parents[1] / "results" / "kernels-audio-stats.json"
RATE, FRAME, BELOW_DB = 16_000, 320, 40.0


def clips_of(count: int, seconds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw noise whose loudness changes every 100 ms, clips within half of `seconds`."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(seconds * RATE // 2, 3 * seconds * RATE // 2, count)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    gain = np.repeat(10 ** generator.uniform(-4, -1, edges[-1] // 1600 + 1), 1600)[: edges[-1]]
    samples = (generator.standard_normal(edges[-1]) * gain).astype(np.float32)
    return torch.from_numpy(samples), torch.from_numpy(edges)


def plain(samples: np.ndarray, edges: list[int]) -> list[tuple[Any, ...]]:
    """Compute the same statistics as one would write them down, a pass each over a clip in fp64."""
    rows = []
    for start, end in itertools.pairwise(edges):
        clip = samples[start:end].astype(np.float64)
        padded = np.pad(clip, (0, -len(clip) % FRAME)).reshape(-1, FRAME)
        power = np.square(padded).mean(axis=1)
        sounds = np.flatnonzero(power > power.max() * 10 ** (-BELOW_DB / 10))
        edge = np.diff(np.concatenate([[-1], sounds, [len(power)]])) - 1
        level = 10 * np.log10(np.maximum(power, 1e-10))
        high, low = np.percentile(level, [95, 10])
        rows.append((
            len(clip) / RATE, np.abs(clip).max(), np.sqrt(np.mean(np.square(clip))), clip.mean(),
            np.mean(np.abs(clip) >= 0.999), np.mean((clip[1:] < 0) != (clip[:-1] < 0)), 1 - len(sounds) / len(power),
            edge[0] * FRAME / RATE, edge[-1] * FRAME / RATE, edge[1:-1].max(initial=0) * FRAME / RATE, high - low,
        ))  # fmt: skip
    return rows


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], audio_seconds: float, rounds: int) -> dict[str, Any]:
    timed = abba(ours, theirs, rounds)
    return {
        "our_ms_per_minute_of_sound": round(60e3 * timed.ours / audio_seconds, 3),
        "their_ms_per_minute_of_sound": round(60e3 * timed.theirs / audio_seconds, 3),
        **timed.ratio(),
    }


def measure(count: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    samples, offsets = clips_of(count, seconds)
    array, edges = samples.numpy(), offsets.tolist()

    def ours() -> Any:
        return audio_stats(samples, offsets, RATE)

    def reference() -> Any:
        return audio_stats_reference(samples, offsets, RATE, FRAME, BELOW_DB)

    def numpy() -> Any:
        return plain(array, edges)

    got = torch.stack(list(vars(ours()).values()))
    torch.testing.assert_close(got, torch.stack(list(vars(reference()).values())), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got, torch.tensor(np.array(numpy())).T, rtol=1e-10, atol=1e-12)
    return [
        {"clips": count, "mean_seconds": seconds, "theirs": name, **compare(ours, theirs, edges[-1] / RATE, rounds)}
        for name, theirs in (("the definition in torch", reference), ("plain numpy", numpy))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for count, seconds in ((64, 1), (64, 4), (8, 30)):
        for row in measure(count, seconds, arguments.rounds):
            print(row, flush=True)
            rows.append(row)
    report = {
        "command": "python benchmarks/kernels/audio_stats.py",
        "threads": 1,
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "torch")},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
