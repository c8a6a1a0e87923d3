import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest

from tercet.errors import UsageError
from tercet_audio.engines import ENGINES, engine, find_voice, ready_engine

TEXT = "Please take two tablets of metformin every evening."
WITH_VOICES = sorted(ENGINES.keys() - {"coqui"})  # which speaks with a model of the user's: test_coqui
PROGRAM = """
import hashlib, sys
from tercet_audio.engines import ready_engine
made = ready_engine(sys.argv[1])
speech = made.speak(sys.argv[2], made.voices()[0].name, 1.0, 5)
print(hashlib.sha256(speech.samples.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("name", WITH_VOICES)
def test_the_same_request_gives_the_same_samples_in_this_process_and_another(name):
    made = ready_engine(name)
    voice = made.voices()[0].name
    first = made.speak(TEXT, voice, 1.0, 5)
    made.speak("Something else in between.", voice, 1.0, 9)
    assert np.array_equal(first.samples, made.speak(TEXT, voice, 1.0, 5).samples)
    command = [sys.executable, "-c", PROGRAM, name, TEXT]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(first.samples.tobytes()).hexdigest()


@pytest.mark.parametrize("name", WITH_VOICES)
def test_every_voice_speaks_and_a_faster_pace_takes_less_time(name):
    made = ready_engine(name)
    for voice in made.voices():
        speech = made.speak(TEXT, voice.name, 1.0, 5)
        seconds = len(speech.samples) / speech.rate
        assert 1.5 < seconds < 8, voice
        assert speech.samples.dtype == np.float32
        assert 0.01 < np.abs(speech.samples).max() <= 1.0
    slow, fast = (len(made.speak(TEXT, made.voices()[0].name, pace, 5).samples) for pace in made.pace_range)
    assert fast < 0.9 * slow


def test_a_breathy_voice_gives_the_same_samples_at_another_time_of_day():
    first = ready_engine("espeak").speak(TEXT, "en-us+f2", 1.0, 0).samples
    time.sleep(1.1)  # espeak-ng would seed its noise with the second in which it starts
    assert np.array_equal(first, ready_engine("espeak").speak(TEXT, "en-us+f2", 1.0, 0).samples)


def test_an_absent_engine_or_voice_names_what_there_is():
    with pytest.raises(UsageError, match="speech engine 'nobody' does not exist; there are: hibari"):
        engine("nobody")
    with pytest.raises(UsageError, match="hibari"):
        find_voice("hibari:nobody")


def test_espeak_speaks_from_the_wheel_where_no_program_is_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    made = ready_engine("espeak")
    assert len(made.speak(TEXT, made.voices()[0].name, 1.0, 0).samples) > 10_000
