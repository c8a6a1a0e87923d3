"""MinHash on a CPU: `signatures` and `signatures_of_texts` against rensa, datasketch and datatrove's line of numpy.

    python benchmarks/kernels/minhash.py    (under a minute)

Same shingles, same number of permutations, one thread each. Compares in one process, in the order A B B A, and gives
the median of the paired ratios with a bootstrap interval. Where both compute one formula, signatures are held against
the library's before any timing. Results go to benchmarks/results/kernels-minhash.json.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before rensa and torch count the cores

import argparse
import importlib.metadata
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rensa
import torch
from abba import abba, seconds_of
from datasketch import MinHash

from tercet_kernels.minhash import FORMULAS, permutations, shingle_hashes, signatures, signatures_of_texts

RESULTS = Path(__file__).parents[1] / "results" / "kernels-minhash.json"
COUNT, SEED, LENGTH = 128, 42, 5
MERSENNE = np.uint64((1 << 61) - 1)


def texts_of(documents: int, characters: int) -> list[str]:
    """Draw texts of words of a small vocabulary, their lengths within half of `characters`."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    texts = []
    for _ in range(documents):
        length = draw.randint(characters // 2, 3 * characters // 2)
        texts.append(" ".join(draw.choices(words, k=length // 3))[:length])
    return texts


def hashes_of(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    data = [text.encode() for text in texts]
    units = torch.frombuffer(bytearray(b"".join(data)), dtype=torch.uint8)
    return shingle_hashes(units, torch.tensor([0, *map(len, data)]).cumsum(0), LENGTH)


def by_rensa(hashes: torch.Tensor, edges: torch.Tensor) -> list[list[int]]:
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes.view(torch.uint64).numpy(), edges.view(torch.uint64).numpy(), COUNT, SEED
    )
    rows: list[list[int]] = matrix.to_rows()
    return rows


def by_datasketch(hashes: torch.Tensor, edges: torch.Tensor, scheme: str) -> list[list[int]]:
    rows = []
    for document in torch.tensor_split(hashes, edges[1:-1]):
        sketch = MinHash(num_perm=COUNT, seed=SEED, hashfunc=lambda value: value, scheme=scheme)
        sketch.update_batch(document.numpy())
        rows.append(sketch.hashvalues.tolist())
    return rows


def by_datatrove(hashes: torch.Tensor, edges: torch.Tensor) -> list[list[int]]:
    generator = np.random.RandomState(SEED)
    a = generator.randint(1, MERSENNE, dtype=np.uint64, size=(1, COUNT))
    b = generator.randint(0, MERSENNE, dtype=np.uint64, size=(1, COUNT))
    rows = []
    for document in torch.tensor_split(hashes, edges[1:-1]):
        values = np.bitwise_and((document.numpy().view(np.uint64).reshape(-1, 1) * a + b) % MERSENNE, 0xFFFFFFFF)
        rows.append(np.min(values, axis=0).tolist())
    return rows


def texts_by_rensa(texts: list[str]) -> Any:
    shingles = [[text[i : i + LENGTH] for i in range(len(text) - LENGTH + 1)] for text in texts]
    return rensa.RMinHash.digest_matrix_from_token_sets(shingles, COUNT, SEED).to_rows()


def texts_by_datasketch(texts: list[str]) -> Any:
    rows = []
    for text in texts:
        data = text.encode()
        sketch = MinHash(num_perm=COUNT, seed=SEED)
        sketch.update_batch([data[i : i + LENGTH] for i in range(len(data) - LENGTH + 1)])
        rows.append(sketch.hashvalues)
    return rows


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], shingles: int, seconds: float) -> dict[str, Any]:
    timed = abba(ours, theirs, min(40, max(5, round(seconds / 2 / (seconds_of(ours) + seconds_of(theirs))))))
    return {
        "our_million_shingles_per_second": round(shingles / 1e6 / timed.ours, 2),
        "their_million_shingles_per_second": round(shingles / 1e6 / timed.theirs, 2),
        **timed.ratio(),
    }


def measure(documents: int, characters: int, seconds: float) -> list[dict[str, Any]]:
    texts = texts_of(documents, characters)
    hashes, edges = hashes_of(texts)
    low = hashes & 0xFFFFFFFF  # datasketch's hashes have 32 bits

    families = {formula: permutations(COUNT, seed=SEED, formula=formula) for formula in FORMULAS}
    family = families["rensa-v2"]

    def sign(formula: str, values: torch.Tensor = hashes) -> torch.Tensor:
        return signatures(values, edges, families[formula])

    def sign_texts() -> torch.Tensor:
        return signatures_of_texts(texts, family)

    def legacy() -> list[list[int]]:
        return by_datasketch(low, edges, "legacy")

    assert sign("rensa-v2").tolist() == by_rensa(hashes, edges)
    assert sign("datatrove-32").tolist() == by_datatrove(hashes, edges)
    assert sign("datasketch", low).tolist() == legacy()
    pairs: list[tuple[str, str, Callable[[], Any], Callable[[], Any]]] = [
        ("rensa-v2", "rensa, as lists", lambda: sign("rensa-v2"), lambda: by_rensa(hashes, edges)),
        ("datatrove-32", "datatrove's numpy", lambda: sign("datatrove-32"), lambda: by_datatrove(hashes, edges)),
        (
            "datasketch",
            "datasketch legacy",
            lambda: sign("datasketch", low),
            legacy,
        ),
        ("rensa-v2", "datasketch affine32", lambda: sign("rensa-v2"), lambda: by_datasketch(low, edges, "affine32")),
        ("texts", "rensa on slices", sign_texts, lambda: texts_by_rensa(texts)),
        (
            "texts",
            "datasketch on slices",
            sign_texts,
            lambda: texts_by_datasketch(texts),
        ),
    ]
    shape = {"documents": documents, "characters": characters, "shingles": len(hashes)}
    return [
        {**shape, "ours": our_name, "theirs": name, **compare(ours, theirs, len(hashes), seconds)}
        for our_name, name, ours, theirs in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="per comparison, about")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for documents, characters in ((2000, 200), (60, 6000)):
        for row in measure(documents, characters, arguments.seconds):
            print(row, flush=True)
            rows.append(row)
    report = {
        "command": "python benchmarks/kernels/minhash.py",
        "permutations": COUNT,
        "threads": 1,
        "versions": {name: importlib.metadata.version(name) for name in ("rensa", "datasketch", "numpy", "torch")},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
