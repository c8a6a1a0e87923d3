"""Which rows are dropped, mode by mode, against a loop over the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples

from tercet_kernels.similarity import duplicates, earlier_max, pairs_above

CHAIN = torch.tensor([[0, 2], [1, 2], [2, 3], [4, 5]])  # row 3 is like row 2 alone, and row 2 like 0 and 1


@pytest.mark.parametrize(
    ("mode", "dropped"), [("any_earlier", [2, 3, 5]), ("greedy", [2, 5]), ("components", [1, 2, 3, 5])]
)
def test_each_mode_drops_its_own(mode, dropped) -> None:
    assert duplicates(CHAIN, 7, mode=mode).nonzero()[:, 0].tolist() == dropped


def by_definition(pairs, rows, mode):
    likes = [{row} for row in range(rows)]
    for one, other in pairs:
        likes[one].add(other)
        likes[other].add(one)
    if mode == "any_earlier":
        return [min(likes[row]) < row for row in range(rows)]
    if mode == "greedy":
        dropped: list[bool] = []
        for row in range(rows):
            dropped.append(any(not dropped[other] for other in likes[row] if other < row))
        return dropped
    for _ in range(rows):
        likes = [set().union(*(likes[other] for other in group)) for group in likes]
    return [min(likes[row]) < row for row in range(rows)]


@given(st.data())
@settings(max_examples=examples(60, 1000), deadline=None)
def test_every_mode_is_its_definition(data) -> None:
    rows = data.draw(st.integers(2, 14))
    pair = st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1)).filter(lambda pair: pair[0] < pair[1])
    pairs = sorted(data.draw(st.sets(pair, max_size=20)))
    tensor = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    drops = {mode: duplicates(tensor, rows, mode=mode) for mode in ("any_earlier", "greedy", "components")}
    for mode, drop in drops.items():
        assert drop.tolist() == by_definition(pairs, rows, mode), mode
    assert bool((drops["greedy"] <= drops["any_earlier"]).all() & (drops["any_earlier"] <= drops["components"]).all())


def test_any_earlier_is_a_threshold_on_earlier_max() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    drop = duplicates(pairs_above(x, 0.97)[0], 60)
    assert torch.equal(drop, earlier_max(x)[0] >= 0.97)
    assert 0 < drop.sum() < 60


@pytest.mark.parametrize(
    ("pairs", "mode", "complaint"),
    [
        (CHAIN, "all", "mode is 'all'; choose from any_earlier, greedy, components"),
        (CHAIN.flip(1), "greedy", "a pair isn't"),
        (CHAIN.flip(0), "greedy", "aren't in order"),
        (CHAIN + 3, "greedy", "a pair names row 8"),
        (CHAIN.int(), "greedy", "of torch.int32; give"),
        (CHAIN[:, :1], "greedy", r"pairs are \(4, 1\)"),
    ],
)
def test_faulty_pairs_are_refused(pairs, mode, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        duplicates(pairs, 7, mode=mode)
