from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import UsageError
from tercet.train.order import Order, bucketed
from tercet.train.task import Row


def data(sizes, replay=0, padded_to=0.0) -> Any:
    rows = [Row(float(size), int(size)) for size in sizes]
    return SimpleNamespace(rows=rows, replay=[Row(1.0)] * replay, padded_to=padded_to)


def order(sizes=(1,) * 9, replay_rows=0, padded_to=0.0, **settings):
    given_ = {"micro_batch": 2, "budget": None, "accumulate": 1, "replay": 0.0, "seed": 4} | settings
    return Order(data(sizes, replay_rows, padded_to), **given_)


def seen(made, steps, **how):
    return [row for step in range(steps) for part in made.step(step, **how) for row in part.rows]


def test_a_pass_uses_every_row_once_in_an_order_of_its_own():
    found = seen(order(micro_batch=1), 18)
    assert sorted(found[:9]) == sorted(found[9:]) == list(range(9))
    assert found[:9] != found[9:]


def test_a_step_depends_on_its_number_alone():
    made = order(sizes=range(1, 30), replay_rows=5, budget=40, accumulate=2, replay=0.3)
    first = [made.step(step) for step in range(12)]
    again = order(sizes=range(1, 30), replay_rows=5, budget=40, accumulate=2, replay=0.3)
    assert [again.step(step) for step in reversed(range(12))] == first[::-1]


def test_accumulated_micro_batches_go_on_through_the_rows():
    assert sorted(seen(order(micro_batch=1, accumulate=3), 3)) == list(range(9))


@given(st.integers(1, 5), st.floats(0, 0.9), st.one_of(st.none(), st.integers(3, 60)))
def test_replay_keeps_its_share_over_a_training(micro_batch, replay, budget):
    made = order(sizes=range(1, 14), replay_rows=7, micro_batch=micro_batch, replay=replay, budget=budget)
    parts = [part for step in range(200) for part in made.step(step)]
    own, general = (sum(len(part) for part in some) for some in zip(*((p.rows, p.replay) for p in parts), strict=True))
    assert abs(general - own * replay / (1 - replay)) <= 1
    uses = Counter(row for part in parts for row in part.replay)
    assert max(uses.values(), default=0) - min(uses.values(), default=0) <= 1


def test_half_replay_gives_as_many_general_rows_in_every_micro_batch():
    parts = [part for step in range(20) for part in order(replay_rows=3, replay=0.5).step(step)]
    assert {(len(part.rows), len(part.replay)) for part in parts} == {(2, 2)}


@given(st.lists(st.integers(1, 90), min_size=1, max_size=120), st.integers(1, 200))
def test_a_budget_bounds_every_batch_with_its_padding_and_loses_no_row(sizes, budget):
    rows = [Row(float(size)) for size in sizes]
    batches = bucketed(list(range(len(rows))), rows, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(rows[row].size for row in batch) <= budget


def test_rows_alike_in_size_come_together():
    sizes = [10, 90] * 200
    made = order(sizes=sizes, budget=900)
    parts = [made.step(step)[0] for step in range(40)]
    assert made.padding(parts)[1] < 0.05
    mixed = order(sizes=sizes, micro_batch=10)
    assert mixed.padding([mixed.step(step)[0] for step in range(40)])[1] > 0.3


def test_padding_counts_to_a_fixed_size_where_the_task_has_one():
    made = order(sizes=[15, 15, 15], padded_to=30.0, micro_batch=3)
    assert made.padding(made.step(0)) == (45.0, 0.5)


@pytest.mark.parametrize("halvings", [0, 1, 2, 9])
def test_halving_keeps_the_rows_the_replay_and_the_weights(halvings):
    whole = order(sizes=range(1, 10), replay_rows=4, micro_batch=5, accumulate=2, replay=0.5).step(3)
    parts = order(sizes=range(1, 10), replay_rows=4, micro_batch=5, accumulate=2, replay=0.5).step(3, halvings=halvings)
    for name in ("rows", "replay"):
        assert [one for part in parts for one in getattr(part, name)] == [
            one for part in whole for one in getattr(part, name)
        ]
    assert max(len(part.rows) for part in parts) == max(1, -(-5 // 2**halvings))
    for share in ("own_share", "replay_share", "share"):
        assert sum(getattr(part, share) for part in parts) == pytest.approx(1)


def test_a_micro_batchs_share_is_its_labels():
    parts = order(sizes=[1, 2, 3, 4], micro_batch=2, accumulate=2).step(0)
    assert [part.own_share for part in parts] == [sum(row + 1 for row in part.rows) / 10 for part in parts]
    assert [part.share for part in parts] == [part.own_share for part in parts]
    assert {part.replay_share for part in parts} == {0.0}


def test_replay_has_a_share_of_its_own_and_a_part_of_the_whole():
    whole = order(sizes=[1, 2, 3], replay_rows=2, micro_batch=3, replay=0.25)
    parts = whole.step(0, processes=2)
    assert [(len(part.rows), len(part.replay)) for part in parts] == [(1, 0), (2, 1)]
    own = [sum(row + 1 for row in part.rows) for part in parts]
    assert [part.own_share for part in parts] == [one / 6 for one in own]
    assert [part.replay_share for part in parts] == [0.0, 1.0]
    assert [part.share for part in parts] == [own[0] / 7, (own[1] + 1) / 7]


def test_the_parts_do_not_depend_on_the_processes_where_there_are_enough():
    assert order(accumulate=4).step(5, processes=2) == order(accumulate=4).step(5)


def test_every_process_gets_a_part_or_the_fix_is_named():
    parts = order(micro_batch=3).step(0, processes=3)
    assert [len(part.rows) for part in parts] == [1, 1, 1]
    with pytest.raises(UsageError, match=r"a step has 2 rows for 3 processes; raise train\.accumulate to 3"):
        order(micro_batch=2).step(0, processes=3)
