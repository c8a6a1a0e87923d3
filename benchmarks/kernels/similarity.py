"""Semantic duplicates on a CPU: `pairs_above` and `earlier_max` against faiss and a full rectangle in blocks.

    python benchmarks/kernels/similarity.py                                        (about a minute)
    OMP_NUM_THREADS=2 nice -n 10 python benchmarks/kernels/similarity.py --rows 200000 --alone

The first compares in one process, in the order A B B A, and gives the median of the paired ratios with a bootstrap
interval. The second runs ours alone, once, and says what it took beyond the input. Each checks first that planted
pairs are found, all and only they. Results go to benchmarks/results/kernels-similarity.json, under a key each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from abba import abba, seconds_of
from torch import Tensor

from tercet_kernels.similarity import earlier_max, pairs_above

RESULTS = Path(__file__).parents[1] / "results" / "kernels-similarity.json"
THRESHOLD = 0.8
BLOCK = 1024  # NeMo Curator's pairwise_batch_size


def planted(rows: int, features: int) -> tuple[Tensor, Tensor]:
    """Make random rows, and the pairs among them that were made alike: one row in 200 is a noisy copy."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.empty(rows, features).normal_(generator=generator)
    chosen = torch.randperm(rows, generator=generator)[: 2 * (rows // 200)].view(-1, 2).sort(dim=1).values
    noise = torch.empty(len(chosen), features).normal_(generator=generator)
    x_ND[chosen[:, 1]] = x_ND[chosen[:, 0]] + 0.3 * noise  # cosine about 0.96; others stay below 0.4
    return x_ND, chosen[(chosen[:, 0] * rows + chosen[:, 1]).argsort()]


def rectangle_max(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Do as NeMo Curator's pairwise.py: all rows by a block of columns, the upper triangle, the maximum."""
    units_ND = torch.nn.functional.normalize(x_ND, dim=1)
    found = [
        torch.triu(units_ND @ units_ND[start : start + BLOCK].T, diagonal=1 - start).max(dim=0)
        for start in range(0, len(x_ND), BLOCK)
    ]
    return torch.cat([block.values for block in found]), torch.cat([block.indices for block in found])


def faiss_pairs(x_ND: Tensor) -> Tensor:
    """Search faiss's IndexFlatIP by range, and keep the pairs (earlier, later)."""
    import faiss

    units_ND = torch.nn.functional.normalize(x_ND, dim=1).numpy()
    index = faiss.IndexFlatIP(units_ND.shape[1])
    index.add(units_ND)
    limits, _, neighbours = index.range_search(units_ND, THRESHOLD)
    one_P = torch.arange(len(x_ND)).repeat_interleave(torch.from_numpy(limits.astype("int64")).diff())
    pairs_P2 = torch.stack([one_P, torch.from_numpy(neighbours)], dim=1)
    return pairs_P2[pairs_P2[:, 0] < pairs_P2[:, 1]]


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    timed = abba(ours, theirs, rounds)
    return {"ours_seconds": round(timed.ours, 4), "theirs_seconds": round(timed.theirs, 4), **timed.ratio()}


def compare_all(rows: int, features: int, rounds: int) -> dict[str, Any]:
    x_ND, expected_P2 = planted(rows, features)
    later_P = expected_P2[:, 1]
    assert torch.equal(pairs_above(x_ND, THRESHOLD)[0], expected_P2)
    assert torch.equal(earlier_max(x_ND)[1][later_P], expected_P2[:, 0])
    assert torch.equal(rectangle_max(x_ND)[1][later_P], expected_P2[:, 0])
    found_P2 = faiss_pairs(x_ND)
    assert torch.equal(found_P2[found_P2[:, 0].argsort(stable=True)], expected_P2)
    return {
        "earlier_max against the rectangle of NeMo Curator": compare(
            lambda: earlier_max(x_ND), lambda: rectangle_max(x_ND), rounds
        ),
        "pairs_above against faiss.IndexFlatIP.range_search": compare(
            lambda: pairs_above(x_ND, THRESHOLD), lambda: faiss_pairs(x_ND), rounds
        ),
    }


def run_alone(rows: int, features: int) -> dict[str, Any]:
    x_ND, expected_P2 = planted(rows, features)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[tuple[Tensor, Tensor]] = []
    pairs_seconds = seconds_of(lambda: found.append(pairs_above(x_ND, THRESHOLD)))
    max_seconds = seconds_of(lambda: found.append(earlier_max(x_ND)))
    beyond = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    (pairs_P2, _), (_, index_N) = found
    return {
        "pairs_above_seconds": round(pairs_seconds, 1),
        "earlier_max_seconds": round(max_seconds, 1),
        "input_mib": round(x_ND.numel() * 4 / 2**20),
        "peak_beyond_input_mib": round(beyond),
        "planted_pairs": len(expected_P2),
        "pairs_found_are_the_planted": torch.equal(pairs_P2, expected_P2),
        "planted_named_by_earlier_max": int((index_N[expected_P2[:, 1]] == expected_P2[:, 0]).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="run ours once, without the others")
    arguments = parser.parse_args()
    load_before, cpu_before = os.getloadavg()[0], time.process_time()
    start = time.perf_counter()
    if arguments.alone:
        measured = run_alone(arguments.rows, arguments.features)
    else:
        measured = compare_all(arguments.rows, arguments.features, arguments.rounds)
    result = {
        "rows": arguments.rows,
        "features": arguments.features,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "cpu_seconds": round(time.process_time() - cpu_before, 1),
        "wall_seconds": round(time.perf_counter() - start, 1),
        **measured,
    }
    print(json.dumps(result, indent=2))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["alone" if arguments.alone else "compared"] = result
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
