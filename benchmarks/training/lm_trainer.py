"""Chat fine-tuning in tercet against transformers' Trainer with PEFT, as its guides write it.

    python benchmarks/training/lm_trainer.py --pairs 6 --steps 5

Both train SmolLM2-135M-Instruct in fp32 on the support recipe's dialogs, with the same tokens and labels, adapter,
optimiser and schedule, and as many dialogs per optimiser step on average, so that equal steps are equal passes. Each
side is a process of its own. They take turns in segments of `--steps` steps, in ABBA order, after one segment to warm
up. A rate is tokens of dialogs per second, each dialog counted whole and padding not, the side's preparation spread
over its steps. The result is the ratio within each pair, ours / theirs, with the bootstrap's 95 % of its median. Then
both are judged by their loss on held-out dialogs. Writes benchmarks/results/training-lm.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tercet.machine import describe_machine, say_machine
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "recipes" / "support.yaml"
RESULTS = REPOSITORY / "benchmarks" / "results" / "training-lm.json"
TARGET = 1.5  # tokens per second, ours / theirs


class Side:
    """One training in its own process; it goes on only when asked."""

    def __init__(self, name: str, asked: argparse.Namespace, steps: int, batch: int = 0) -> None:
        command = [sys.executable, str(Path(__file__).with_name("lm_sides.py")), name, "--run", str(asked.run)]
        command += ["--steps", str(steps), "--segment", str(asked.steps), "--threads", str(asked.threads)]
        command += ["--batch", str(batch), "--base", asked.base]
        environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "TOKENIZERS_PARALLELISM": "false"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def hear(self) -> dict[str, Any]:
        """Wait for what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with {self.process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def leave(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def go(self) -> dict[str, Any]:
        """Let it go on, and wait."""
        self.leave()
        return self.hear()


def rate(segment: dict[str, Any], prepare_seconds: float) -> float:
    """Give tokens per second, with the segment's share of the preparation."""
    return float(segment["tokens"] / (segment["seconds"] + prepare_seconds))


def summed_up(ratios: list[float]) -> dict[str, Any]:
    """Give the median of paired ratios with the bootstrap's 95 %."""
    held = np.array(ratios)
    draws = np.random.default_rng(0).integers(0, len(held), (4000, len(held)))
    low, high = np.quantile(np.median(held[draws], axis=1), (0.025, 0.975))
    return {"median": float(np.median(held)), "low": float(low), "high": float(high), "pairs": ratios}


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run both trainings in turns."""
    num_segments = asked.pairs + 1  # the first warms up
    steps = num_segments * asked.steps
    own = Side("ours", asked, steps)
    prepared = {"ours": own.hear()}
    per_step = prepared["ours"]["dialogs_per_step"]
    batch = max(1, round(per_step))
    other = Side("theirs", asked, steps, batch)
    prepared["theirs"] = other.hear()
    sides = {"ours": own, "theirs": other}
    segments: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for number in range(num_segments):
        for name in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            segments[name].append(sides[name].go())
            print(f"{name:6} {rate(segments[name][-1], 0):7.1f} tokens/s", flush=True)
    ended = {name: side.go() for name, side in sides.items()}
    for side in sides.values():
        side.leave()
        side.process.wait()
    timed = list(zip(segments["ours"][1:], segments["theirs"][1:], strict=True))
    took = {name: prepared[name]["prepare_seconds"] for name in sides}
    rates = [(rate(a, took["ours"] / num_segments), rate(b, took["theirs"] / num_segments)) for a, b in timed]
    dialogs = prepared["ours"]["dialogs"]
    return {
        "ratio": summed_up([a / b for a, b in rates]),
        "ratio_of_steps_alone": summed_up([rate(a, 0) / rate(b, 0) for a, b in timed]),
        "tokens_per_second": {name: float(np.median([pair[at] for pair in rates])) for at, name in enumerate(sides)},
        "prepare_seconds": took,
        "peak_memory_gib": {name: round(ended[name]["memory_gib"], 3) for name in sides},
        "held_out_loss": {name: round(ended[name]["loss"], 4) for name in sides},
        "steps": steps,
        "dialogs_per_step": {"ours": per_step, "theirs": batch},
        "passes": {"ours": steps * per_step / dialogs, "theirs": steps * batch / dialogs},
        "our_data": prepared["ours"]["data"],
        "segments": segments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of segments")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps of one segment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", type=Path, help="folder of the dialogs; made on first use")
    parser.add_argument("--base", default="auto", help="auto: SmolLM2-135M-Instruct")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    asked.run = asked.run or REPOSITORY / ".cache" / "lm-trainer"
    if not asked.run.exists():
        run_recipe(load_recipe(RECIPE), asked.run)
    load = os.getloadavg()[0]
    result = {
        "command": f"python benchmarks/training/lm_trainer.py --pairs {asked.pairs} --steps {asked.steps} "
        f"--threads {asked.threads}",
        "base": asked.base, "machine": say_machine(describe_machine()), "threads": asked.threads,
        **{name: version(name) for name in ("torch", "transformers", "peft")},
        "load_before": round(load, 1), **measure(asked),
    }  # fmt: skip
    asked.output.write_text(json.dumps(result, indent=1) + "\n")
    ratio, speeds, memory, loss = (
        result[name] for name in ("ratio", "tokens_per_second", "peak_memory_gib", "held_out_loss")
    )
    print(
        f"tokens per second: {speeds['ours']:.0f} against {speeds['theirs']:.0f}; ratio {ratio['median']:.2f} "
        f"({ratio['low']:.2f} to {ratio['high']:.2f}); aim {TARGET}: "
        f"{'met' if ratio['low'] >= TARGET else 'missed'}\n"
        f"peak memory: {memory['ours']:.2f} against {memory['theirs']:.2f} GiB\n"
        f"loss on held-out dialogs: {loss['ours']:.4f} against {loss['theirs']:.4f}"
    )


if __name__ == "__main__":
    main()
