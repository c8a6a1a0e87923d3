from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import NothingSurvived, UsageError
from tercet.recipe import EarlyStop, Train
from tercet.records import Record, Verdict
from tercet.train.mixing import draw_pass, is_watched, record_weights, training_records


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


def test_sources_are_watched_by_their_share_and_seed():
    stop = EarlyStop(share=0.2)
    watched = [is_watched(f"sentence {n}", stop, 1) for n in range(4000)]
    assert 0.17 < sum(watched) / 4000 < 0.23
    assert watched != [is_watched(f"sentence {n}", stop, 2) for n in range(4000)]
    assert not any(is_watched(f"sentence {n}", None, 1) for n in range(50))


def test_a_larger_share_of_the_data_holds_all_of_a_smaller_one():
    records = [record(n) for n in range(2000)]
    quarter, half = (training_records(records, train(data_fraction=one), 3) for one in (0.25, 0.5))
    assert {one.id for one in quarter} < {one.id for one in half}
    assert 420 < len(quarter) < 580
    assert training_records(records, train(), 3) == records


def test_settings_that_leave_nothing_to_train_on_are_named():
    records = [record(n) for n in range(3)]
    with pytest.raises(NothingSurvived, match=r"data_fraction 0\.0001 leave none of 3 records"):
        training_records(records, train(data_fraction=0.0001), 3)
    assert training_records([], train(data_fraction=0.0001), 3) == []


def test_watched_sources_are_not_trained_on():
    records = [record(n) for n in range(200)]
    wishes = train(early_stop={"share": 0.3})

    def source(one):
        return f"sentence {one.id[1:][:1]}"

    kept = training_records(records, wishes, 3, source)
    assert {source(one) for one in kept} == {
        source(one) for one in records if not is_watched(source(one), wishes.early_stop, 3)
    }
    assert 0 < len(kept) < 200
