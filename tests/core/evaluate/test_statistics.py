import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tercet.evaluate.decision import decide
from tercet.evaluate.statistics import Comparison, Counts, compare

COUNT = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10), st.integers(0, 5))


def pair(rows):
    base = [Counts(str(source), errors, units) for errors, _, units, source in rows]
    tuned = [Counts(str(source), errors, units) for _, errors, units, source in rows]
    return base, tuned


@given(rows=st.lists(COUNT, min_size=1, max_size=20))
def test_the_point_estimates_are_ratios_of_sums(rows):
    found = compare(*pair(rows), resamples=200)
    units = sum(row[2] for row in rows)
    if not units:
        assert found is None
        return
    assert found is not None
    assert found.base == pytest.approx(100 * sum(row[0] for row in rows) / units)
    assert found.tuned == pytest.approx(100 * sum(row[1] for row in rows) / units)
    assert found.change == pytest.approx(found.tuned - found.base)
    assert found.low <= found.high


def test_the_interval_agrees_with_scipy_where_every_source_has_one_item():
    draw = np.random.default_rng(3)
    rows = [
        (int(e), int(t), 10, n) for n, (e, t) in enumerate(zip(draw.poisson(3, 80), draw.poisson(2, 80), strict=True))
    ]
    found = compare(*pair(rows), resamples=8000)
    change = np.array([(t - e) * 10.0 for e, t, _, _ in rows])  # equal units: a mean of per-source changes, in points
    theirs = stats.bootstrap((change,), np.mean, n_resamples=8000, method="percentile", rng=1).confidence_interval
    assert found is not None
    assert found.low == pytest.approx(theirs.low, abs=0.4)
    assert found.high == pytest.approx(theirs.high, abs=0.4)
    assert found.detectable == pytest.approx(2.8 * change.std() / math.sqrt(80), rel=0.05)


def test_clips_of_one_sentence_count_once():
    many = [(4, 2, 10, n // 10) for n in range(80)]  # 8 sentences, 10 voices each, all equal within a sentence
    few = [(4, 2, 10, n) for n in range(8)]
    draw = np.random.default_rng(0)
    noise = draw.integers(-2, 3, 8)
    many = [(e + int(noise[s]), t, u, s) for e, t, u, s in many]
    few = [(e + int(noise[s]), t, u, s) for e, t, u, s in few]
    first, second = compare(*pair(many)), compare(*pair(few))
    assert first is not None
    assert second is not None
    assert (first.low, first.high) == pytest.approx((second.low, second.high))
    assert first.sources == 8


def test_the_same_seed_gives_the_same_interval_and_no_pairing_is_refused():
    rows = [(3, 1, 10, n) for n in range(9)]
    assert compare(*pair(rows), seed=5) == compare(*pair(rows), seed=5)
    base, tuned = pair(rows)
    with pytest.raises(ValueError, match="same items"):
        compare(base, tuned[::-1])


def test_what_a_set_could_show_follows_from_the_confidence_asked_for():
    draw = np.random.default_rng(3)
    rows = [(int(draw.poisson(3)), int(draw.poisson(2)), 10, n) for n in range(80)]
    wide, usual = compare(*pair(rows), confidence=0.995), compare(*pair(rows))
    assert wide is not None
    assert usual is not None
    z = stats.norm.ppf
    assert wide.detectable / usual.detectable == pytest.approx((z(0.9975) + z(0.8)) / (z(0.975) + z(0.8)))


def test_a_source_without_units_is_none_to_draw_from():
    found = compare(*pair([(4, 2, 10, 0), (3, 1, 10, 1), (1, 0, 0, 2), (0, 0, 0, 3)]))
    assert found is not None
    assert (found.sources, found.items) == (2, 4)


def change(low, high, base=10.0):
    middle = (low + high) / 2
    return Comparison(base, base + middle, middle, low, high, middle / base, low / base, high / base, 1.0, 9, 9, 99)


BETTER, UNSURE, WORSE = change(-5, -2), change(-1, 1), change(1, 3)


@pytest.mark.parametrize(
    ("primary", "general", "others", "triggers", "verdict"),
    [
        (BETTER, change(-1, 2), UNSURE, 0.1, "promote"),
        (BETTER, change(-1, 2.01), UNSURE, 0.0, "hold"),  # the general set may have risen above the margin
        (BETTER, change(2.01, 4), UNSURE, 0.0, "decline"),  # it certainly has
        (BETTER, change(0, 1), WORSE, 0.0, "hold"),  # U-WER wholly worse
        (BETTER, change(0, 1), UNSURE, 0.11, "hold"),  # false triggers
        (UNSURE, change(0, 1), UNSURE, 0.0, "hold"),
        (WORSE, change(0, 1), UNSURE, 0.0, "decline"),
        (BETTER, change(0, 1), None, 0.0, "promote"),
    ],
)
def test_the_decision_follows_its_rules(primary, general, others, triggers, verdict):
    decision = decide(primary, {"telephone": general}, others, triggers, margin=2.0)
    assert decision.verdict == verdict
    assert any("telephone" in reason for reason in decision.reasons)


def test_without_a_general_set_nothing_is_promoted():
    assert decide(BETTER, {}, UNSURE, 0.0, margin=2.0).verdict == "hold"


def test_one_bad_general_set_among_several_is_enough_to_decline():
    assert decide(BETTER, {"a": UNSURE, "b": change(3, 4)}, UNSURE, 0.0, margin=2.0).verdict == "decline"


@pytest.mark.parametrize(("sources", "verdict"), [(4, "hold"), (5, "decline")])
def test_an_interval_over_few_sources_declines_nothing(sources, verdict):
    forgets, worse = (dataclasses.replace(one, sources=sources) for one in (change(3, 3), WORSE))
    assert decide(BETTER, {"telephone": forgets}, UNSURE, 0.0, margin=2.0).verdict == verdict
    assert decide(worse, {"telephone": UNSURE}, UNSURE, 0.0, margin=2.0).verdict == verdict


def test_an_interval_over_few_sources_promotes_nothing():
    few = dataclasses.replace(BETTER, sources=4)
    decision = decide(few, {"telephone": UNSURE}, UNSURE, 0.0, margin=2.0)
    assert decision.verdict == "hold"
    assert "fails: B-WER over 4 sources: at least 5" in decision.reasons
    assert decide(dataclasses.replace(BETTER, sources=5), {"a": UNSURE}, UNSURE, 0.0, margin=2.0).verdict == "promote"
    quiet = dataclasses.replace(UNSURE, sources=4)  # one source alone has an interval of no width
    decision = decide(BETTER, {"telephone": quiet}, UNSURE, 0.0, margin=2.0)
    assert decision.verdict == "hold"
    assert "fails: general set telephone over 4 sources: at least 5" in decision.reasons
