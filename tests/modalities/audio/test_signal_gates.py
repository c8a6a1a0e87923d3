import io
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.modality import Gate, NoAnswers, Resources
from tercet.records import Candidate, Item
from tercet_audio.clip import finish
from tercet_audio.engines import ready_engine
from tercet_audio.gates.signal import (
    CharacterRate,
    Clipping,
    Duration,
    Silence,
    flat_share,
    measure,
    written_characters,
)
from tercet_audio.payload import encode_flac
from tercet_audio.recipe import CharacterRateGate, ClippingGate, DurationGate, SilenceGate

RATE = 16_000
TEXT = "Please take two tablets of metformin every evening with some water."
RESOURCES = Resources(recipe_seed=0, language="en", cores=1, answers=NoAnswers())
ITEM = Item("audio", "speech", "train", {}, 0)
GATES: dict[str, Gate] = {
    "duration": Duration(DurationGate(), RESOURCES),
    "silence": Silence(SilenceGate(), RESOURCES),
    "clipping": Clipping(ClippingGate(), RESOURCES),
    "character_rate": CharacterRate(CharacterRateGate(), RESOURCES),
}


def candidate(samples, **columns):
    payload = {"audio": encode_flac(np.asarray(samples, np.float32)), "text": TEXT, "spoken": TEXT, "pace": 1.0}
    return Candidate(ITEM, payload | columns)


def judge(name, samples, **columns):
    (verdict,) = GATES[name]([candidate(samples, **columns)])
    return verdict


def halting(clip):
    """Put 1.3 s of silence after each half second."""
    pieces = [np.pad(clip[at : at + RATE // 2], (0, RATE * 13 // 10)) for at in range(0, len(clip), RATE // 2)]
    return np.concatenate(pieces)[: -RATE * 13 // 10]


@pytest.fixture(scope="session")
def spoken():
    """Raw samples by two engines of different rates: (samples, rate)."""
    voices = (("pico", "en-US"), ("hibari", "heart"))
    said = [ready_engine(name).speak(TEXT, voice, 1.0, 1) for name, voice in voices]
    return [(speech.samples, speech.rate) for speech in said]


@pytest.fixture(scope="session")
def clips(spoken):
    return [finish(samples, rate) for samples, rate in spoken]


@pytest.mark.parametrize("name", GATES)
def test_a_good_clip_passes_each_gate_with_a_score_within_its_threshold(name, clips):
    for clip in clips:
        verdict = judge(name, clip)
        assert verdict.passed, verdict
        assert not verdict.reason
        assert verdict.score <= verdict.threshold


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        ("duration", lambda clip: clip[: RATE // 2], "too short"),
        ("duration", lambda clip: np.tile(clip, 8), "too long"),
        ("silence", lambda clip: clip * 0.01, "too quiet"),
        ("silence", lambda clip: clip * 0, "too quiet"),
        ("silence", lambda clip: np.pad(clip, (RATE * 5 // 4, 0)), "leading silence"),
        ("silence", lambda clip: np.pad(clip, (0, RATE * 5 // 4)), "trailing silence"),
        ("silence", lambda clip: np.insert(clip, RATE, np.zeros(RATE * 2)), "long pause"),
        ("silence", lambda clip: halting(clip[: RATE * 2]), "too much silence"),
        ("character_rate", lambda clip: clip[: len(clip) // 2], "too short for its text"),
        ("character_rate", lambda clip: clip[::2], "too short for its text"),
        ("character_rate", lambda clip: np.repeat(clip, 3), "too long for its text"),
    ],
)
def test_each_planted_fault_is_named(name, fault, reason, clips):
    for clip in clips:
        verdict = judge(name, fault(clip))
        assert not verdict.passed
        assert verdict.reason == reason
        assert verdict.score is not None
        assert verdict.threshold is not None


def test_a_clip_amplified_and_cut_is_rejected_though_finishing_scaled_it_down(spoken):
    for samples, rate in spoken:
        loud = np.clip(samples / np.abs(samples).max() * 8, -1, 1).astype(np.float32)
        clip = finish(loud, rate)
        assert np.abs(clip).max() < 0.9
        verdict = judge("clipping", clip)
        assert (verdict.passed, verdict.reason) == (False, "clipped")


def test_the_asked_pace_is_divided_out(clips):
    fast = clips[1][: len(clips[1]) // 2]
    assert not judge("character_rate", fast).passed
    assert judge("character_rate", fast, pace=2.0).passed
    assert judge("character_rate", fast, pace=2.0).score == pytest.approx(judge("character_rate", clips[1]).score)


def test_what_is_spoken_counts_and_not_what_is_written(clips):
    assert not judge("character_rate", clips[0], text=TEXT, spoken="Two.").passed
    assert judge("character_rate", clips[0], text="2", spoken=TEXT).passed
    assert judge("character_rate", clips[0], text=TEXT, spoken="").passed  # a recording has no spoken form


def test_a_digit_counts_as_four_letters():
    assert written_characters(" Take  50\nmg ") == len("Take 50 mg") + 6


def wav(samples, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (b"", "no sound"),
        (None, "no sound"),
        ("text", "no sound"),
        (b"fLaC and then nothing", "undecodable"),
        (encode_flac(np.zeros(RATE, np.float32))[:60], "undecodable"),
        (wav(np.zeros(RATE), 8000), "undecodable"),
        (wav(np.zeros((RATE, 2))), "undecodable"),
        (wav(np.zeros(0)), "no sound"),
        (wav(np.full(RATE, np.nan)), "not finite"),
    ],
)
def test_a_hostile_payload_is_rejected_with_a_reason_and_never_raises(name, audio, reason):
    (verdict,) = GATES[name]([Candidate(ITEM, {"audio": audio, "text": TEXT, "spoken": TEXT, "pace": 1.0})])
    assert (verdict.passed, verdict.reason) == (False, reason)


@pytest.mark.parametrize("pace", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_rejected(pace, clips):
    assert judge("character_rate", clips[0], pace=pace).reason == "no pace"
    assert judge("character_rate", clips[0], text=" ", spoken="").reason == "no text"


def test_a_payload_without_audio_column_is_rejected():
    for gate in GATES.values():
        assert gate([Candidate(ITEM, {})])[0].reason == "no sound"


def test_verdicts_keep_the_order_and_number_of_the_batch(clips):
    batch = [candidate(clips[0]), replace(candidate(clips[0]), payload={"audio": b""}), candidate(clips[1])]
    assert [verdict.passed for verdict in GATES["duration"](batch)] == [True, False, True]
    assert GATES["duration"]([]) == []


@settings(deadline=None, max_examples=60)
@given(
    frames=st.lists(st.booleans(), min_size=1, max_size=60).filter(any), tail=st.integers(min_value=1, max_value=320)
)
def test_silences_add_up_to_the_clip(frames, tail):
    clip = np.repeat(np.where(frames, 0.5, 0.0), 320).astype(np.float32)[: (len(frames) - 1) * 320 + tail]
    if not clip.any():
        return
    (found,) = measure([clip], 40)
    silent = [not loud for loud in frames]
    assert found.silence_ratio == pytest.approx(sum(silent) / len(silent))
    runs = [(loud, len(list(run))) for loud, run in groupby(frames)]
    assert found.leading == pytest.approx(0.0 if runs[0][0] else runs[0][1] * 0.02)
    assert found.trailing == pytest.approx(0.0 if runs[-1][0] else runs[-1][1] * 0.02)
    assert found.longest_pause == pytest.approx(max((n * 0.02 for loud, n in runs[1:-1] if not loud), default=0.0))


def test_single_peaks_are_not_flat_and_runs_are():
    assert flat_share(np.array([0, 1, 0, 1, 1, 0, -1, -0.2], np.float32), 0.999) == 0
    assert flat_share(np.array([1, 1, 1, 0, 0, -1, -1, -1], np.float32), 0.999) == 6 / 8
    assert flat_share(np.zeros(100, np.float32), 0.5) == 0
