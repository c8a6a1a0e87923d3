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
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import Side, compared, take_turns

from tercet.machine import describe_machine, say_machine
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "recipes" / "support.yaml"
RESULTS = REPOSITORY / "benchmarks" / "results" / "training-lm.json"
SIDES = Path(__file__).with_name("lm_sides.py")
TARGET = 1.5  # tokens per second, ours / theirs


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run both trainings in turns."""
    num_segments = asked.pairs + 1  # the first warms up
    steps = num_segments * asked.steps
    options = {"run": asked.run, "base": asked.base, "steps": steps, "segment": asked.steps}
    sides = {"ours": Side(SIDES, "ours", asked.threads, **options)}
    prepared = {"ours": sides["ours"].hear()}
    per_step = prepared["ours"]["dialogs_per_step"]
    batch = max(1, round(per_step))
    sides["theirs"] = Side(SIDES, "theirs", asked.threads, batch=batch, **options)
    prepared["theirs"] = sides["theirs"].hear()
    segments, ended = take_turns(sides, num_segments, "tokens")
    dialogs = prepared["ours"]["dialogs"]
    return {
        **compared(segments, {name: said["prepare_seconds"] for name, said in prepared.items()}),
        "peak_memory_gib": {name: round(said["memory_gib"], 3) for name, said in ended.items()},
        "held_out_loss": {name: round(said["loss"], 4) for name, said in ended.items()},
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
    ratio, speeds, memory, loss = (result[name] for name in ("ratio", "per_second", "peak_memory_gib", "held_out_loss"))
    print(
        f"tokens per second: {speeds['ours']:.0f} against {speeds['theirs']:.0f}; ratio {ratio['median']:.2f} "
        f"({ratio['low']:.2f} to {ratio['high']:.2f}); aim {TARGET}: "
        f"{'met' if ratio['low'] >= TARGET else 'missed'}\n"
        f"peak memory: {memory['ours']:.2f} against {memory['theirs']:.2f} GiB; aim no higher: "
        f"{'met' if memory['ours'] <= memory['theirs'] else 'missed'}\n"
        f"loss on held-out dialogs: {loss['ours']:.4f} against {loss['theirs']:.4f}"
    )


if __name__ == "__main__":
    main()
