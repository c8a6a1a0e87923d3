from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import UsageError
from tercet.recipe import Train
from tercet.records import Record, Verdict
from tercet.train.mixing import draw_pass, record_weights


def record(number, generator="speech", score=None, threshold=0.1):
    verdicts = () if score is None else (Verdict("round_trip", passed=True, score=score, threshold=threshold),)
    return Record(f"r{number}", f"k{number}", "audio", "train", {}, {"generator": generator}, verdicts)


def train(**wishes):
    return Train.model_validate({"task": "naming", **wishes})


def test_without_wishes_every_record_counts_alike_and_comes_once():
    weights = record_weights([record(n) for n in range(7)], train())
    assert weights == [1.0] * 7
    assert sorted(draw_pass(weights, "seed")) == list(range(7))


@given(st.lists(st.floats(0.05, 3), min_size=1, max_size=60), st.integers())
def test_a_pass_holds_a_record_as_often_as_its_weight_says(wishes, seed):
    weights = [wish * len(wishes) / sum(wishes) for wish in wishes]
    drawn = draw_pass(weights, f"{seed}")
    assert len(drawn) == len(weights)
    uses = Counter(drawn)
    for number, weight in enumerate(weights):
        assert weight - 1 - 1e-6 < uses[number] < weight + 1 + 1e-6


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_real_records_take_the_share_that_the_recipe_names(fraction):
    records = [record(n, "examples" if n < 4 else "speech") for n in range(40)]
    weights = record_weights(records, train(real_fraction=fraction))
    assert sum(weights[:4]) / sum(weights) == pytest.approx(fraction)
    assert sum(weights) == pytest.approx(40)


def test_a_share_of_real_records_needs_some_of_both():
    with pytest.raises(UsageError, match=r"train\.real_fraction: 0\.3, but there is no real record"):
        record_weights([record(1)], train(real_fraction=0.3))
    with pytest.raises(UsageError, match="no synthetic record"):
        record_weights([record(1, "examples")], train(real_fraction=0.3))


@pytest.mark.parametrize("flip", [1, -1])  # errors below a threshold, or scores above one
def test_what_a_gate_judged_best_counts_most(flip):
    records = [record(n, score=flip * score, threshold=flip * 0.1) for n, score in enumerate((0.0, 0.05, 0.1))]
    weights = record_weights(records, train(weights={"gate": "round_trip", "least": 0.2}))
    assert [weight / weights[0] for weight in weights] == pytest.approx([1, 0.6, 0.2])


def test_a_record_that_the_gate_did_not_judge_counts_in_full():
    records = [record(0, score=0.1), record(1), record(2, score=0.0)]
    weights = record_weights(records, train(weights={"gate": "round_trip", "least": 0.5}))
    assert weights[1] == weights[2] == 2 * weights[0]


def test_a_gate_without_scores_is_named_with_those_that_have_some():
    with pytest.raises(UsageError, match=r"train\.weights\.gate: 'loudness' gave .*gates that did: round_trip"):
        record_weights([record(0, score=0.0)], train(weights={"gate": "loudness"}))
