"""The pipeline's own cost: a generator and a gate that do nothing, at 1k to 1M records, journal on.

    python benchmarks/pipeline/throughput.py --records 1000 10000 100000 1000000

Each size runs in a process of its own. Prints a table and writes benchmarks/results/pipeline-throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPE = "version: 1\nname: noop\nmodalities:\n  noop: {{records: {records}}}\n"


def measure(records: int, workers: int) -> dict[str, float]:
    """Run one size in this process and say what it took."""
    from tercet.pipeline.progress import Progress
    from tercet.pipeline.run import run_recipe
    from tercet.recipe import load_recipe

    first: list[float] = []

    def watch(progress: Progress) -> None:
        if not first and progress.done:
            first.append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "noop.yaml")
        path.write_text(RECIPE.format(records=records))
        start = time.perf_counter()
        result = run_recipe(load_recipe(path), workers=workers, progress=watch)
        seconds = time.perf_counter() - start
    assert result.summary["modalities"]["noop"]["accepted"] == records
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "records": records,
        "workers": workers,
        "seconds": round(seconds, 2),
        "records_per_second": round(records / seconds),
        "microseconds_per_record": round(seconds / records * 1e6, 1),
        "start_up_seconds": round(first[0], 2),
        "driver_peak_mib": round(driver),
        "worker_peak_mib": round(worker),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="measure in this process and print JSON")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "pipeline-throughput.json")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.records[0], arguments.workers)))
        return
    environment = dict(os.environ, PYTHONPATH=str(HERE / "plugin"))
    rows = []
    for records in arguments.records:
        command = [sys.executable, __file__, "--one", "--records", str(records), "--workers", str(arguments.workers)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    report = {"command": "python benchmarks/pipeline/throughput.py", "cores": os.cpu_count(), "rows": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
