"""Edit distance by definition (Levenshtein 1966; the rows of Wagner and Fischer 1974).

d[i][j] = min(d[i-1][j] + 1, d[i][j-1] + 1, d[i-1][j-1] + (a[i-1] != b[j-1]))
"""

from __future__ import annotations

from collections.abc import Sequence


def distance_reference(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the insertions, deletions and substitutions that turn `a` into `b`, at the least."""
    previous = list(range(len(b) + 1))
    for row, token in enumerate(a, start=1):
        current = [row]
        for column, other in enumerate(b, start=1):
            substituted = previous[column - 1] + (token != other)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]
