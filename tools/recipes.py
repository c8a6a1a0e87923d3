"""Run the recipes from data to decision, one after another, and write down what each step took and what came out.

    .venv/bin/python -m tools.recipes recipes/support.yaml recipes/brand-vqa.yaml recipes/brand-pictures.yaml

Each is `tercet run && tercet train && tercet eval`, from nothing, with every core. Writes
benchmarks/results/recipe-<name>.json, from which `python tools/readme_table.py` makes the README's table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tercet.evaluate.seeds import kept
from tercet.machine import describe_machine
from tercet.pipeline.run import default_run_dir
from tercet.recipe import load_recipe

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TERCET = Path(sys.executable).with_name("tercet")
VERBS = ("run", "train", "eval")


def measure(path: Path) -> int:
    """Run one recipe, and write its result; return the first exit code that isn't 0."""
    recipe = load_recipe(path)
    run_dir = default_run_dir(recipe)
    shutil.rmtree(run_dir, ignore_errors=True)
    load = os.getloadavg()[0]
    minutes: dict[str, float] = {}
    cores = {"OMP_NUM_THREADS": str(describe_machine()["cores"])}
    for verb in VERBS:
        began = time.monotonic()
        # a worker of `run` is a process; a model has the machine to itself
        environment = os.environ | ({} if verb == "run" else cores)
        code = subprocess.run([TERCET, verb, str(path)], env=environment, check=False).returncode
        if code:
            return code
        minutes[verb] = round((time.monotonic() - began) / 60, 2)
    evaluation = json.loads((run_dir / "evaluation.json").read_bytes())
    result = {
        "command": f"python -m tools.recipes {path}",
        "machine": describe_machine(),
        "load_before": round(load, 1),
        "minutes": minutes,
        "task": recipe.sections.train.task,
        "recipe": recipe.digest,
        **kept(evaluation),
    }
    file = RESULTS / f"recipe-{recipe.name}.json"
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"{recipe.name}: {evaluation['decision']['verdict']}, {sum(minutes.values()):.1f} minutes ({file})")
    return 0


def main() -> int:
    """Run the recipes named; return the first exit code that isn't 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="+")
    for path in parser.parse_args().recipes:
        if code := measure(path):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
