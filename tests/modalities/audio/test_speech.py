"""Clips: one format, one loudness, little silence, the same samples whatever the batch, one failure per fault."""

import io
import os
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile

from tercet.errors import BackendError
from tercet.modality import NoAnswers, Planning, Resources
from tercet.records import Failure, Item, Made, ModelUse
from tercet.sources import Term
from tercet.testing import check_payload
from tercet_audio import speech
from tercet_audio.clip import LOUDNESS_DB, MAX_EDGE_SECONDS, MAX_PEAK, finish, normalise, trim
from tercet_audio.engines.base import Speech as Said
from tercet_audio.payload import decode_clip, encode_flac, fingerprint, payload
from tercet_audio.plan import plan
from tercet_audio.recipe import AudioRecipe
from tercet_audio.speech import Speech

RATE = 16_000
SECTION = AudioRecipe.model_validate({"clips": 40, "paces": [0.85, 1.0, 1.2], "held_out": {"engine_clips": 6}})
PLANNING = Planning(1, "en", [Term(name) for name in ("metformin", "warfarin", "sertraline", "ramipril", "naproxen")])
RESOURCES = Resources(1, "en", cores=1, answers=NoAnswers())


def speak(items, section=SECTION):
    return list(Speech(section, RESOURCES)(items))


@pytest.fixture(scope="module")
def items():
    """One item of each engine at each pace."""
    planned = plan(SECTION, PLANNING)
    found: dict[tuple[str, float], Item] = {}
    for index in range(len(planned)):
        item = planned.item(index)
        found.setdefault((item.spec["voice"].partition(":")[0], item.spec["pace"]), item)
    assert len(found) == 9
    return list(found.values())


@pytest.fixture(scope="module")
def made(items):
    return speak(items)


def test_a_clip_is_mono_16_khz_flac_of_one_loudness_with_little_silence(made):
    for one in made:
        with soundfile.SoundFile(io.BytesIO(one.payload["audio"])) as file:
            assert (file.samplerate, file.channels, file.format, file.subtype) == (RATE, 1, "FLAC", "PCM_16")
        clip = decode_clip(one.payload["audio"])
        assert one.payload["seconds"] == pytest.approx(len(clip) / RATE, abs=1e-3)
        assert 1 < one.payload["seconds"] < 9
        rms_db = 20 * np.log10(np.sqrt(np.mean(np.square(clip))))
        assert rms_db == pytest.approx(LOUDNESS_DB, abs=0.1) or np.abs(clip).max() == pytest.approx(MAX_PEAK, abs=0.01)
        quiet = np.abs(clip) < np.abs(clip).max() / 300
        assert np.flatnonzero(~quiet)[0] < 0.2 * RATE
        check_payload(payload, one.payload)


def test_a_clip_says_what_was_asked_for_and_who_spoke(items, made):
    for item, one in zip(items, made, strict=True):
        for name in ("text", "spoken", "term", "phrase", "voice", "pace"):
            assert one.payload[name] == item.spec[name]
        assert one.payload["accent"] == item.cell["accent"]
        assert one.payload["voice"].startswith(one.payload["engine"] + ":")
        assert one.model.output_terms == "free"
        assert one.model.reference.startswith(("pkg:", "system:"))


def test_the_realised_pace_is_measured_against_the_same_voice_at_its_own_pace(items, made):
    for item, one in zip(items, made, strict=True):
        asked, realised = item.spec["pace"], one.payload["realised_pace"]
        if asked == 1.0:
            assert realised == 1.0
        else:
            assert (realised > 1.0) == (asked > 1.0)
        if item.spec["voice"].startswith("espeak"):
            assert realised == pytest.approx(asked, abs=0.07)  # hibari rounds each sound to 25 ms and moves less


def test_the_samples_do_not_depend_on_batch_order_or_what_was_said_before(items, made):
    elsewhere = [replace(item, index=item.index + 1000) for item in items]
    backwards = speak(elsewhere[::-1])[::-1]
    alone = [speak([item])[0] for item in items[::4]]
    assert [fingerprint(one.payload) for one in backwards] == [fingerprint(one.payload) for one in made]
    assert [fingerprint(one.payload) for one in alone] == [fingerprint(one.payload) for one in made[::4]]


def test_the_fingerprint_is_of_samples_and_text_and_not_of_the_encoding(made):
    columns = dict(made[0].payload)
    samples, rate = soundfile.read(io.BytesIO(columns["audio"]), dtype="int16")
    wav = io.BytesIO()
    soundfile.write(wav, samples, rate, format="WAV", subtype="PCM_16")
    assert fingerprint({**columns, "audio": wav.getvalue()}) == fingerprint(columns)
    assert fingerprint({**columns, "text": "other"}) != fingerprint(columns)
    louder = encode_flac(decode_clip(columns["audio"]) * 1.1)
    assert fingerprint({**columns, "audio": louder}) != fingerprint(columns)


@pytest.mark.parametrize("name", ["espeak", "pico"])
def test_an_engine_that_is_killed_costs_one_item_which_can_be_asked_again(items, name, monkeypatch):
    chosen = [item for item in items if item.spec["voice"].startswith(name) and item.spec["pace"] == 1.0] * 3
    generator = Speech(SECTION, RESOURCES)
    answers = iter(generator(chosen))
    first: Any = next(answers)
    engine: Any = generator._engines[name][0]
    process = engine._child._process
    with monkeypatch.context() as patched:
        # it dies after it was found alive: while it speaks
        patched.setattr(engine._child, "_start", lambda: process)
        os.kill(process.pid, signal.SIGKILL)
        failed = next(answers)
    third: Any = next(answers)
    assert isinstance(failed, Failure)
    assert failed.retryable
    assert name in failed.message
    assert fingerprint(first.payload) == fingerprint(third.payload)


class Faulty:
    """An engine whose second answer is a fault."""

    def __init__(self, fault):
        self.fault, self.asked = fault, 0
        self.name = "faulty"

    def use(self):
        return ModelUse("pkg:faulty", "0", "MIT", "free")

    def speak(self, *_request):
        self.asked += 1
        if self.asked == 2:
            if isinstance(self.fault, Exception):
                raise self.fault
            return self.fault
        return Said(np.sin(np.arange(24_000, dtype=np.float32) / 9) * np.float32(0.3), 24_000)


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [
        (BackendError("no answer in 60 s", retryable=True), True),
        (BackendError("refused the text", retryable=False), False),
        (Said(np.zeros(0, np.float32), 16_000), False),
    ],
)
def test_a_fault_is_the_failure_of_its_own_item(items, fault, retryable, monkeypatch):
    faulty = Faulty(fault)
    monkeypatch.setattr(speech, "ready_engine", lambda name, settings: faulty)
    chosen = [item for item in items if item.spec["pace"] == 1.0][:3]
    answers = speak(chosen)
    assert [type(one) for one in answers] == [Made, Failure, Made]
    assert (answers[1].stage, answers[1].retryable) == ("generate", retryable)


def tone(seconds, level=0.3):
    return (level * np.sin(2 * np.pi * 300 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def test_silence_at_the_ends_is_cut_to_what_is_allowed_and_inside_is_kept():
    clip = trim(np.concatenate([silence(0.5), tone(0.4), silence(1.0), tone(0.4), silence(0.9)]))
    assert len(clip) / RATE == pytest.approx(0.4 + 1.0 + 0.4 + 2 * MAX_EDGE_SECONDS, abs=0.02)
    short = np.concatenate([silence(0.05), tone(0.4), silence(0.1)])
    assert len(trim(short)) == len(short)


@pytest.mark.parametrize("count", [0, 1, 100, 1601])
def test_a_clip_without_sound_or_shorter_than_a_frame_stays_whole(count):
    assert len(finish(np.zeros(count, np.float32), RATE)) == count


def test_loudness_is_common_but_peaks_are_kept_and_a_broken_clip_stays_quiet():
    for level in (0.05, 0.3, 1.0):
        assert np.sqrt(np.mean(np.square(normalise(tone(1, level))))) == pytest.approx(
            10 ** (LOUDNESS_DB / 20), rel=1e-3
        )
    click = silence(1.0)
    click[500] = 1.0
    assert np.abs(normalise(click)).max() == pytest.approx(MAX_PEAK, abs=1e-3)
    assert np.abs(normalise(tone(1, 0.001))).max() < 0.011


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100])
def test_another_rate_keeps_its_length_in_seconds(rate):
    samples = np.sin(2 * np.pi * 300 * np.arange(rate) / rate).astype(np.float32)
    assert len(finish(samples, rate)) == pytest.approx(RATE, abs=2)
