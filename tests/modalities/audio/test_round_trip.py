from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tercet.errors import ModelError
from tercet.modality import NoAnswers, Resources
from tercet.models import ResolvedModel, resolve
from tercet.records import Candidate, Item
from tercet_audio.calibration import Figure
from tercet_audio.clip import finish
from tercet_audio.engines import ready_engine
from tercet_audio.gates import round_trip
from tercet_audio.gates.masked import compare, mask
from tercet_audio.gates.round_trip import BATCH_SIZE, RoundTrip, limit_of, load_listener
from tercet_audio.metrics import normaliser
from tercet_audio.payload import encode_flac
from tercet_audio.recipe import RoundTripGate

ENGLISH = normaliser("en")
RESOURCES = Resources(recipe_seed=0, language="en", cores=1, answers=NoAnswers())
TEXT = "The pharmacist put the metformin on the shelf behind the counter."
TERM = "metformin"


@pytest.mark.parametrize(
    ("text", "term", "heard", "errors", "words", "ratios"),
    [
        ("Take metformin now.", "metformin", "take metformin now", 0, 2, (1.0,)),
        ("Take metformin now.", "Metformin", "Take met for men now!", 0, 2, (9 / 9,)),
        ("Take metformin now.", "metformin", "take now", 0, 2, (0.0,)),
        ("Take metformin now.", "metformin", "take metformin", 1, 2, (1.0,)),
        ("Take metformin now.", "metformin", "", 2, 2, (0.0,)),
        ("Metformin.", "metformin", "Met forming", 0, 0, (10 / 9,)),
        ("Metformin.", "metformin", "", 0, 0, (0.0,)),
        ("A beta-blocker, or beta blocker.", "beta-blocker", "a beat a blocker or beta blocker", 0, 4, (12 / 11,)),
        ("Metformin and metformin again.", "metformin", "metformin and again", 0, 2, (1.0, 0.0)),
        ("Is it every day?", "", "is it everyday", 0, 4, ()),
        ("Ten milligrams of it.", "", "10mg of it", 0, 4, ()),
        ("Take two of it.", "", "take 2 of it please", 1, 4, ()),
        ("Ask about Ms.", "MS", "ask about ms", 0, 2, (1.0,)),
        ("Systems need MS here.", "MS", "systems need emma's here", 0, 3, None),
        ("The dose (5 mg) is low.", "5 mg", "the dose 5 mg is low", 0, 4, (1.0,)),
        ("Nothing of that kind.", "metformin", "nothing of that kind", 0, 4, ()),
        ("It is x.*", "x.*", "it is x", 0, 2, (1.0,)),
    ],
)
def test_errors_count_off_the_term_alone_and_its_letters_are_measured(text, term, heard, errors, words, ratios):
    found = compare(text, term, heard, ENGLISH)
    assert (found.errors, found.words) == (errors, words)
    if ratios is not None:
        assert found.term_ratios == pytest.approx(ratios)


def test_words_inserted_away_from_the_term_are_errors():
    assert (
        compare(TEXT, TERM, "The old pharmacist put the metformin on the shelf behind the counter", ENGLISH).errors == 1
    )
    assert compare(TEXT, TERM, TEXT.replace(TERM, "met fur mean"), ENGLISH).errors == 0


def test_a_term_inside_another_word_is_not_masked():
    assert mask("Insulin is not in.", "in", ENGLISH)[1] == [range(3, 4)]


class Listener:
    """Hears what the test says, by the clip's number of samples; remembers its batches."""

    def __init__(self):
        self.transcripts: dict[int, str] = {}
        self.batches: list[list[int]] = []

    def __call__(self, clips):
        self.batches.append([len(clip) for clip in clips])
        return [self.transcripts.get(len(clip), "") for clip in clips]


@pytest.fixture
def kit(monkeypatch):
    """A gate whose listener and figures are the test's own."""
    listener = Listener()
    monkeypatch.setattr(round_trip, "resolve", lambda *_: ResolvedModel("pkg:x", Path(), "d", "MIT", "free", ""))
    monkeypatch.setattr(round_trip, "load_listener", lambda *_: listener)

    def build(section=None, medians=None, language="en"):
        gate = RoundTrip(section or RoundTripGate(), Resources(0, language, 1, NoAnswers()))
        figures = {voice: figure(voice, median) for voice, median in (medians or {}).items()}
        monkeypatch.setattr(gate, "calibration", lambda voice, _settings: figures.get(voice))
        return gate

    return SimpleNamespace(listener=listener, build=build)


def figure(voice, median):
    return Figure(voice, "pkg:x", "x", "pkg:j", "j", 50, median, median)


def candidate(length, slot=0, split="train", **columns):
    payload = {
        "audio": encode_flac(np.full(length, 0.1, np.float32)),
        "text": TEXT,
        "term": TERM,
        "voice": "hibari:heart",
        "accent_mechanism": "native_voice",
    }
    return Candidate(Item("audio", "speech", split, {}, slot), payload | columns, {}, slot)


def judge(kit, transcript, *, gate=None, **columns):
    kit.listener.transcripts = {20_000: transcript}
    (verdict,) = (gate or kit.build())([candidate(20_000, **columns)])
    return verdict


@pytest.mark.parametrize(
    ("transcript", "reason"),
    [
        (TEXT, ""),
        (TEXT.replace(TERM, "met for men"), ""),
        (TEXT.replace(" metformin", ""), "term not heard"),
        (TEXT.replace(TERM, "met"), "term too short"),
        (TEXT.replace(TERM, "metformin metformin metformin"), "term too long"),
        (TEXT.replace("shelf behind the counter", "metformin"), "words misheard"),
        ("", "term not heard"),
    ],
)
def test_each_fault_of_a_transcript_has_its_reason(kit, transcript, reason):
    verdict = judge(kit, transcript)
    assert (verdict.passed, verdict.reason) == (not reason, reason)
    assert verdict.score is not None
    assert verdict.threshold is not None


def test_a_clip_of_the_term_alone_is_judged_by_its_length(kit):
    assert judge(kit, "Met forming.", text="Metformin.").passed
    assert judge(kit, "Me.", text="Metformin.").reason == "term too short"


def test_a_short_term_may_be_heard_in_more_letters(kit):
    assert judge(kit, "She has Emma's.", text="She has MS.", term="MS").passed
    assert judge(kit, "She has many more letters.", text="She has MS.", term="MS").reason == "term too long"


def test_what_is_measured_passes_without_a_score_and_is_not_heard(kit):
    gate = kit.build()
    splits = ("held_out_engine", "general", "held_out_terms")
    verdicts = gate([candidate(20_000, slot, split) for slot, split in enumerate(splits)])
    assert [(verdict.passed, verdict.score) for verdict in verdicts] == [(True, None)] * 3
    assert kit.listener.batches == []


def test_a_clip_lies_in_the_slot_that_the_plan_gave_it(kit):
    gate = kit.build()
    gate([candidate(20_000, 6), candidate(20_001, 2), candidate(20_002, 3, "general")])
    assert kit.listener.batches == [[16_000, 16_000, 20_001, 16_000, 16_000, 16_000, 20_000, 16_000]]


def test_more_clips_than_slots_take_more_passes(kit):
    kit.listener.transcripts = {20_000 + at: TEXT for at in range(0, 20, 2)}
    verdicts = kit.build()([candidate(20_000 + at, at % BATCH_SIZE) for at in range(20)])
    assert [verdict.passed for verdict in verdicts] == [True, False] * 10
    assert len(kit.listener.batches) == 3


def test_a_clip_that_is_no_sound_is_rejected_and_the_others_are_judged(kit):
    kit.listener.transcripts = {20_000: TEXT}
    batch = [candidate(20_000, 0, audio=b"x"), candidate(20_000, 1), candidate(480_001, 2)]
    assert [verdict.reason for verdict in kit.build()(batch)] == ["undecodable", "", "longer than Whisper hears"]


@pytest.mark.parametrize(
    ("median", "limit", "label"),
    [(0.0, 0.1, ""), (0.1, 0.1, ""), (0.11, 0.21, "robustness"), (0.3, 0.35, "robustness"), (None, 0.1, "")],
)
def test_a_weak_voice_gets_a_limit_of_its_own_and_the_label(median, limit, label):
    found = limit_of(None if median is None else figure("a:b", median), RoundTripGate())
    assert found.wer == pytest.approx(limit)
    assert found.label == label


def test_one_wrong_word_of_ten_passes_a_weak_voice_and_two_pass_no_other(kit):
    heard = TEXT.replace("shelf", "ship").replace("counter", "mountain")
    assert not judge(kit, heard, gate=kit.build(medians={"hibari:heart": 0.1})).passed
    verdict = judge(kit, heard, gate=kit.build(medians={"hibari:heart": 0.15}))
    assert (verdict.passed, verdict.label, verdict.score) == (True, "robustness", 0.2)


def test_a_recording_has_the_widest_limit_and_no_label(kit):
    heard = TEXT.replace("shelf", "ship").replace("counter", "mountain")
    verdict = judge(kit, heard, accent_mechanism="recording", voice="real")
    assert (verdict.passed, verdict.threshold, verdict.label) == (True, 0.35, "")


def test_in_another_language_no_voice_is_calibrated_on_english_sentences(kit):
    gate = kit.build(medians={"hibari:heart": 0.3}, language="de")
    assert judge(kit, TEXT, gate=gate).threshold == 0.1


def test_a_judge_that_is_no_whisper_is_an_error_with_a_fix(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"round_trip.judge: .*name a Whisper model, or auto"):
        load_listener(ResolvedModel("path:x", tmp_path, "d", "MIT", "free", ""), "en")


@pytest.fixture(scope="module")
def heard_for_real():
    """Verdicts by Whisper base on good clips and planted faults: one pass of eight clips, and one of a single clip."""

    def speak(text, engine="hibari", voice="heart"):
        said = ready_engine(engine).speak(text, voice, 1.0, 1)
        return finish(said.samples, said.rate)

    good = speak(TEXT)
    clips = {
        "good": good,
        "good, British": speak(TEXT, "pico", "en-GB"),
        "cut at half": good[: len(good) // 2],
        "without its term": speak(TEXT.replace(" metformin", "")),
        "another text": speak("Our neighbour bought a yellow bicycle last summer."),
        "silence": np.zeros(len(good), np.float32),
        "doubled speed": good[::2],
    }
    gate = RoundTrip(RoundTripGate(calibration_sentences=0), RESOURCES)
    batch = [
        Candidate(Item("audio", "speech", "train", {}, slot), columns(clip), {}, slot)
        for slot, clip in enumerate(clips.values())
    ]
    alone = gate([batch[0]])[0]
    return dict(zip(clips, gate(batch), strict=True)), alone


def columns(clip):
    return {"audio": encode_flac(clip), "text": TEXT, "term": TERM, "voice": "hibari:heart", "accent_mechanism": ""}


def test_whisper_hears_good_clips_and_each_planted_fault(heard_for_real):
    verdicts, _ = heard_for_real
    assert [name for name, verdict in verdicts.items() if verdict.passed] == ["good", "good, British"], verdicts
    assert verdicts["without its term"].reason == "term not heard"


def test_a_verdict_does_not_depend_on_the_other_clips_of_the_batch(heard_for_real):
    verdicts, alone = heard_for_real
    assert alone == verdicts["good"]


def test_the_default_judge_is_whisper_base_and_not_what_is_tuned_by_default():
    judge, tuned = resolve("auto", "whisper-judge"), resolve("auto", "whisper-tune")
    assert judge.digest != tuned.digest
