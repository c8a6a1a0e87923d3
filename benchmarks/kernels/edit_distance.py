"""Edit distances on a CPU: `edit_distance` and `word_errors` against jiwer.

    python benchmarks/kernels/edit_distance.py    (about a minute)

Compares in one process, in the order A B B A, and gives the median of the paired ratios with a bootstrap interval.
Distances are held against jiwer's before any timing. Results go to benchmarks/results/kernels-edit-distance.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import torch
from abba import abba

from tercet_kernels.edit_distance import edit_distance, word_errors

RESULTS = Path(__file__).parents[1] / "results" / "kernels-edit-distance.json"
VOCABULARY = 5000
ERROR_RATE = 0.15  # of words changed, dropped or added: a transcript of middling quality


def sentences(pairs: int, words: int) -> tuple[list[list[int]], list[list[int]]]:
    """Draw references of about `words` word ids, and hypotheses with errors in them."""
    draw = random.Random(0)
    spoken = [
        [draw.randrange(VOCABULARY) for _ in range(draw.randint(words // 2, 3 * words // 2))] for _ in range(pairs)
    ]
    heard = [[said for word in reference for said in misheard(word, draw)] for reference in spoken]
    return spoken, heard


def misheard(word: int, draw: random.Random) -> list[int]:
    if draw.random() >= ERROR_RATE:
        return [word]
    other = draw.randrange(VOCABULARY)
    return draw.choice([[], [other], [word, other]])


def flat(sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    return ids, torch.tensor([0, *map(len, sequences)]).cumsum(0)


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, rounds: int) -> dict[str, Any]:
    timed = abba(ours, theirs, rounds)
    return {
        "our_pairs_per_second": round(pairs / timed.ours),
        "their_pairs_per_second": round(pairs / timed.theirs),
        **timed.ratio(digits=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]

    lists = sentences(arguments.pairs, arguments.words)
    flats = flat(lists[0]), flat(lists[1])
    references, hypotheses = ([" ".join(f"w{word}" for word in words) for words in side] for side in lists)
    theirs = jiwer.process_words(references, hypotheses)
    errors = theirs.substitutions + theirs.deletions + theirs.insertions
    ours = word_errors(references, hypotheses)
    assert ours.wer == theirs.wer
    assert int(edit_distance(*lists).sum()) == int(edit_distance(*flats).sum()) == errors
    one_by_one = [jiwer.process_words(*pair) for pair in zip(references[:500], hypotheses[:500], strict=True)]
    assert [pair.substitutions + pair.deletions + pair.insertions for pair in one_by_one] == ours.distances_B[
        :500
    ].tolist()

    def process() -> Any:
        return jiwer.process_words(references, hypotheses)

    rounds, pairs = arguments.rounds, arguments.pairs
    result = {
        "pairs": pairs,
        "words": arguments.words,
        "wer": round(ours.wer, 4),
        "threads": torch.get_num_threads(),
        "jiwer": importlib.metadata.version("jiwer"),
        "edit_distance of flat ids against jiwer.process_words": compare(
            lambda: edit_distance(*flats), process, pairs, rounds
        ),
        "edit_distance of lists of ids against jiwer.process_words": compare(
            lambda: edit_distance(*lists), process, pairs, rounds
        ),
        "word_errors of strings against jiwer.process_words": compare(
            lambda: word_errors(references, hypotheses), process, pairs, rounds
        ),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result, indent=2))
    RESULTS.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
