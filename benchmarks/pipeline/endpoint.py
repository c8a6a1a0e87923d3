"""A simulated OpenAI-compatible endpoint behind the pipeline: rows/s, the first request, and what a kill repeats.

    python benchmarks/pipeline/endpoint.py

The endpoint is a process of its own that answers after a fixed latency and counts what it is asked. Each measurement
is a fresh process, journal on, one request per row, its answer kept under its key before it is used; no gate. Rows per
second are rows over the whole call of `run_recipe`, from opening the journal to the manifest. Prints a table and
writes benchmarks/results/pipeline-endpoint.json; where a case was repeated, it shows best and median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tercet.machine import describe_machine

HERE = Path(__file__).resolve().parent
CONCURRENCY = 32
RECIPE = """\
version: 1
name: noop
modalities:
  noop: {{records: {records}, url: {url}, concurrency: {concurrency}, gates: {{passing: null}}}}
"""
CASES = ((200.0, 3200, 0.95 * CONCURRENCY / 0.2), (0.0, 10_000, 1000.0))  # latency in ms, rows, wanted rows/s
FIRST_REQUEST_SECONDS = 1.0


class Endpoint:
    """Answers every chat completion after `latency_seconds`; remembers how often each question came."""

    def __init__(self, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.asked: Counter[str] = Counter()
        self.first_at = 0.0
        self.num_answered = 0

    async def answer(self, request: Any) -> Any:
        """Serve one request: a completion, or on GET what was counted so far."""
        from aiohttp import web

        if request.method == "GET":
            counts = {"asked": self.asked.total(), "first_at": self.first_at, "answered": self.num_answered}
            return web.json_response(counts | {"repeated": self.asked.total() - len(self.asked)})
        question = json.loads(await request.read())["messages"][-1]["content"]
        self.first_at = self.first_at or time.time()
        self.asked[question] += 1
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        self.num_answered += 1
        choice = {"message": {"role": "assistant", "content": f"answer {question}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return web.json_response({"choices": [choice], "usage": usage})


async def serve(latency_seconds: float) -> None:
    """Listen on a free port of the loopback, print the address, and answer for ever."""
    from aiohttp import web

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    runner = web.ServerRunner(web.Server(Endpoint(latency_seconds).answer, access_log=None))
    await runner.setup()
    await web.SockSite(runner, listening).start()
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
    await asyncio.Event().wait()


@contextmanager
def serving(latency_ms: float) -> Iterator[str]:
    """Start the endpoint in a process of its own; give its address."""
    command = [sys.executable, __file__, "--serve", str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def counted(url: str) -> dict[str, Any]:
    """Ask the endpoint what it counted."""
    with urllib.request.urlopen(url) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def start(recipe: Path) -> subprocess.Popen[str]:
    """Run a recipe in a fresh process that prints its seconds."""
    environment = dict(os.environ, PYTHONPATH=str(HERE / "plugin"))
    command = [sys.executable, __file__, "--run", str(recipe)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run(recipe: Path) -> None:
    """Run the recipe in this process and print how long it took."""
    from tercet.pipeline.run import run_recipe
    from tercet.recipe import load_recipe

    began = time.perf_counter()
    result = run_recipe(load_recipe(recipe), workers=0)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "accepted": result.summary["modalities"]["noop"]["accepted"]}))


def write_recipe(folder: str, records: int, url: str) -> Path:
    """Write the recipe of one measurement."""
    path = Path(folder, "noop.yaml")
    path.write_text(RECIPE.format(records=records, url=url, concurrency=CONCURRENCY))
    return path


def measure_rate(latency_ms: float, records: int) -> dict[str, float]:
    """Measure one run from start to end."""
    with tempfile.TemporaryDirectory() as folder, serving(latency_ms) as url:
        recipe = write_recipe(folder, records, url)
        began = time.time()
        with start(recipe) as process:
            said, _ = process.communicate()
        done = json.loads(said)
        ended = time.time()
        counts = counted(url)
    assert done["accepted"] == counts["asked"] == records, (done, counts)
    return {
        "rows_per_second": round(records / done["seconds"], 1),
        "rows_per_second_of_the_process": round(records / (ended - began), 1),
        "first_request_seconds": round(counts["first_at"] - began, 2),
    }


def measure_kill(latency_ms: float, records: int) -> dict[str, float]:
    """Kill a run when half its rows were answered, resume it, and count what was asked twice."""
    with tempfile.TemporaryDirectory() as folder, serving(latency_ms) as url:
        recipe = write_recipe(folder, records, url)
        process = start(recipe)
        while counted(url)["answered"] < records // 2:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = counted(url)
        with start(recipe) as process:
            said, _ = process.communicate()
        after = counted(url)
    assert json.loads(said)["accepted"] == records
    return {"asked_before_the_kill": before["asked"], "asked_again": after["repeated"]}


def measure_case(latency_ms: float, records: int, wanted: float, repeats: int) -> dict[str, Any]:
    """Repeat one latency; keep every rate, best and median."""
    rates = [measure_rate(latency_ms, records) for _ in range(repeats)]
    speeds = [rate["rows_per_second"] for rate in rates]
    kills = [measure_kill(latency_ms, records) for _ in range(repeats)]
    return {
        "latency_ms": latency_ms,
        "records": records,
        "wanted_rows_per_second": round(wanted, 1),
        "best_rows_per_second": max(speeds),
        "median_rows_per_second": statistics.median(speeds),
        "first_request_seconds": statistics.median(rate["first_request_seconds"] for rate in rates),
        "most_asked_again": max(kill["asked_again"] for kill in kills),
        "rates": rates,
        "kills": kills,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    columns = ("latency_ms", "records", "wanted_rows_per_second", "best_rows_per_second", "median_rows_per_second",
               "first_request_seconds", "most_asked_again")  # fmt: skip
    print(" | ".join(columns))
    for row in rows:
        print(" | ".join(f"{row[name]:>{len(name)}}" for name in columns))
    print(f"limits: first request {FIRST_REQUEST_SECONDS:g} s, asked again {CONCURRENCY}")


def main() -> None:
    """Measure every case, or play one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "pipeline-endpoint.json")
    parser.add_argument("--serve", type=float, metavar="LATENCY_MS", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, metavar="RECIPE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve / 1000))
    elif arguments.run is not None:
        run(arguments.run)
    else:
        rows = [measure_case(*case, arguments.repeats) for case in CASES]
        show(rows)
        report = {
            "command": f"python benchmarks/pipeline/endpoint.py --repeats {arguments.repeats}",
            "machine": describe_machine(),
            "load_at_the_end": round(os.getloadavg()[0], 2),
            "concurrency": CONCURRENCY,
            "rows": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
