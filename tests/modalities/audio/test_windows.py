import io
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from tercet.errors import SourceError
from tercet_audio.augment import RATE, add_noise, augment, shift_speed, telephone
from tercet_audio.payload import decode_clip
from tercet_audio.training import SpeechTraining
from tercet_audio.windows import Spoken, pack


def tone(seconds=2.0, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


CLIPS = [Spoken(tone(1 + n % 5), f"sentence {n}") for n in range(23)]


def test_every_copy_of_every_clip_is_in_exactly_one_window_of_at_most_thirty_seconds():
    windows = pack(CLIPS, SpeechTraining(variants=3), seed=1)
    words = " ".join(window.text for window in windows).split()
    assert sorted(words[1::2], key=int) == sorted([str(n) for n in range(23)] * 3, key=int)
    assert max(len(window.samples) for window in windows) <= 30 * RATE
    again = pack(CLIPS, SpeechTraining(variants=3), seed=1)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(windows, again, strict=True))
    assert any(a.text != b.text for a, b in zip(windows, pack(CLIPS, SpeechTraining(variants=3), seed=2), strict=False))


def test_augmentation_is_repeatable_and_does_what_its_names_say():
    clip = tone()
    settings = SpeechTraining()
    assert np.array_equal(augment(clip, settings, random.Random(3)), augment(clip, settings, random.Random(3)))
    assert len(shift_speed(clip, 1.25)) == pytest.approx(len(clip) / 1.25, abs=2)
    peak = np.abs(np.fft.rfft(shift_speed(clip, 1.25))).argmax() * RATE / len(shift_speed(clip, 1.25))
    assert peak == pytest.approx(440 * 1.25, abs=5)
    assert np.square(telephone(tone(hertz=5000))).mean() < 1e-3 * np.square(tone(hertz=5000)).mean()
    assert np.square(telephone(clip)).mean() == pytest.approx(np.square(clip).mean(), rel=0.1)
    noise = add_noise(clip, 10.0, seed=1) - clip
    assert 10 * np.log10(np.square(clip).mean() / np.square(noise).mean()) == pytest.approx(10, abs=0.2)


def test_a_clip_of_another_rate_is_refused():
    file = io.BytesIO()
    soundfile.write(file, tone(), 8000, format="FLAC")
    with pytest.raises(SourceError, match="8000 Hz"):
        decode_clip(file.getvalue())


def test_a_copy_slower_than_whisper_hears_is_left_out_whole():
    slow, short = SpeechTraining(speeds=(0.9, 0.9), variants=2), Spoken(tone(1), "short")
    windows = pack([Spoken(tone(28), "too long when slow"), short], slow, seed=1)
    assert [window.text for window in windows] == ["short", "short"]
    assert pack([Spoken(tone(31), "too long")], SpeechTraining(speeds=(1, 1)), seed=1) == []


def test_segments_lie_where_their_clips_sound():
    settings = SpeechTraining(variants=2, noise_fraction=0, telephone_fraction=0, tone_fraction=0, short_windows=0)
    windows = pack(CLIPS, settings, seed=1)
    assert max(len(window.segments) for window in windows) > 5
    for window in windows:
        sounding = np.zeros(len(window.samples), bool)
        for segment in window.segments:
            start, end = round(segment.start * RATE), round(segment.end * RATE)
            assert np.abs(window.samples[start : start + 40]).max() > 0.01
            assert np.abs(window.samples[end - 40 : end]).max() > 0.01
            sounding[start:end] = True
        assert not window.samples[~sounding].any()
        assert window.segments[0].start == 0
        assert window.segments[-1].end == len(window.samples) / RATE
        gaps = [after.start - before.end for before, after in pairwise(window.segments)]
        assert all(0.149 < gap < 0.601 for gap in gaps)


def test_a_share_of_windows_has_times_always_the_same_ones_and_no_sample_changes():
    plain = pack(CLIPS, SpeechTraining(variants=20), seed=1)
    timed, again = (pack(CLIPS, SpeechTraining(variants=20, timestamps=0.5), seed=1) for _ in range(2))
    assert not any(window.has_timestamps for window in plain)
    assert [window.has_timestamps for window in timed] == [window.has_timestamps for window in again]
    assert 0.35 < np.mean([window.has_timestamps for window in timed]) < 0.65
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(plain, timed, strict=True))
    assert all(window.has_timestamps for window in pack(CLIPS, SpeechTraining(timestamps=1), seed=1))


def test_a_window_is_closed_before_its_text_is_too_long_and_no_clip_is_lost():
    clips = [replace(clip, num_tokens=60 + 10 * (at % 3)) for at, clip in enumerate(CLIPS)]
    windows = pack(clips, SpeechTraining(variants=2), seed=1, most_tokens=150)
    counts = {clip.text: clip.num_tokens for clip in clips}
    assert max(sum(counts[segment.text] for segment in window.segments) for window in windows) <= 150
    assert sum(len(window.segments) for window in windows) == 2 * len(clips)
