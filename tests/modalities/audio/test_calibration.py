import json
from importlib import resources
from pathlib import Path

import pytest

from tercet.cli.app import run_command
from tercet.models import ResolvedModel
from tercet_audio import calibrate, calibration
from tercet_audio.calibration import Calibration, Figure, measure, read_figures, table
from tercet_audio.engines import find_voice, ready_engine
from tercet_audio.gates import round_trip
from tercet_audio.sentences import calibration_sentences

JUDGE = ResolvedModel("pkg:judge", Path(), "j" * 32, "MIT", "free", "")
VOICE = "pico:en-US"


def find(listener, num_sentences=4, judge=JUDGE):
    """Ask a worker's calibration for the voice's figure."""
    figure = Calibration(judge, listener, num_sentences)(VOICE)
    assert figure
    return figure


class Listener:
    """Hears the calibration sentences word for word, but for one word in `wrong` of them."""

    def __init__(self, wrong=0):
        self.wrong = wrong
        self.num_heard = 0

    def __call__(self, clips):
        self.num_heard += len(clips)
        sentences = calibration_sentences(len(clips))
        return [f"{text} yes" if at < self.wrong else text for at, text in enumerate(sentences)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "table", dict)
    return tmp_path / "cache"


def test_a_voice_that_is_heard_well_has_no_errors():
    figure = measure(VOICE, {}, JUDGE, Listener(), 4)
    assert (figure.median_wer, figure.mean_wer, figure.num_sentences) == (0, 0, 4)
    assert figure.key == (ready_engine("pico").use().digest, VOICE, JUDGE.digest)


def test_the_figure_is_the_median_by_sentence_and_the_mean_beside_it():
    words = [len(text.split()) for text in calibration_sentences(4)]
    figure = measure(VOICE, {}, JUDGE, Listener(wrong=1), 4)
    assert figure.median_wer == 0
    assert figure.mean_wer == pytest.approx(1 / words[0] / 4, abs=1e-4)
    assert measure(VOICE, {}, JUDGE, Listener(wrong=4), 4).median_wer > 0


def test_a_voice_without_a_figure_is_measured_once_for_all_workers():
    first, second = Listener(wrong=4), Listener()
    one = Calibration(JUDGE, first, 4)
    assert one(VOICE) == one(VOICE) == Calibration(JUDGE, second, 4)(VOICE)
    assert (first.num_heard, second.num_heard) == (4, 0)


def test_another_judge_or_number_of_sentences_is_another_figure():
    first, second, third = Listener(), Listener(), Listener()
    other = ResolvedModel("pkg:other", Path(), "o" * 32, "MIT", "free", "")
    find(first)
    assert find(second, judge=other).judge == "pkg:other"
    assert find(third, 3).num_sentences == 3
    assert (second.num_heard, third.num_heard) == (4, 3)


def test_a_failed_measurement_leaves_nothing_behind(cache):
    def broken(*_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        find(broken)
    assert find(Listener()).median_wer == 0


def test_a_figure_of_the_table_is_taken_unless_the_engine_has_changed(monkeypatch):
    listener = Listener()
    digest = ready_engine("pico").use().digest
    known = Figure(VOICE, "pkg:py-nanotts", digest, JUDGE.reference, JUDGE.digest, 50, 0.2, 0.3)
    monkeypatch.setattr(calibration, "table", lambda: {known.key: known})
    assert Calibration(JUDGE, listener, 4)(VOICE) is known
    old = Figure(VOICE, "pkg:py-nanotts", "another version", JUDGE.reference, JUDGE.digest, 50, 0.2, 0.3)
    monkeypatch.setattr(calibration, "table", lambda: {old.key: old})
    assert listener.num_heard == 0
    assert Calibration(JUDGE, listener, 4)(VOICE) != old


def test_with_no_sentences_a_voice_without_a_figure_has_none(cache):
    assert Calibration(JUDGE, Listener(), 0)(VOICE) is None
    assert not cache.exists()


def test_the_table_that_comes_with_tercet_says_how_it_was_made():
    text = resources.files("tercet_audio").joinpath("calibration.json").read_text()
    document = json.loads(text)
    assert document["command"].startswith("tercet audio calibrate")
    assert {"processor", "cores"} <= document["machine"].keys()
    assert {"torch", "transformers", "hibari-tts"} <= document["versions"].keys()
    figures = read_figures(text)
    assert figures
    assert figures.keys() == table().keys()
    for figure in figures.values():
        find_voice(figure.voice)
        assert figure.num_sentences == 50
        assert 0 <= figure.median_wer <= 1.5
    by_voice = {figure.voice: figure.median_wer for figure in figures.values()}
    assert by_voice["hibari:heart"] == 0


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run `tercet audio calibrate` with a listener of the test's."""
    listener = Listener()
    monkeypatch.setattr("tercet.models.resolve", lambda *_: JUDGE)
    monkeypatch.setattr(round_trip, "load_listener", lambda *_: listener)
    out = tmp_path / "table.json"

    def run(*arguments):
        with monkeypatch.context() as patch:
            line = ["audio", "calibrate", "--out", str(out), "--sentences", "3", *arguments]
            patch.setattr("sys.argv", ["tercet", *line])
            return run_command(line)

    return run, out, listener


def test_the_command_writes_the_table_and_does_not_measure_a_voice_twice(command):
    run, out, listener = command
    assert run("--voice", VOICE) == 0
    assert listener.num_heard == 3
    assert run("--voice", VOICE, "--voice", "pico:en-GB") == 0
    assert listener.num_heard == 6
    document = json.loads(out.read_text())
    assert [row["voice"] for row in document["figures"]] == ["pico:en-GB", VOICE]
    assert document["command"].startswith("tercet audio calibrate --out")


def test_a_table_that_is_none_is_not_overwritten(command, capsys):
    run, out, listener = command
    out.write_text('{"figures": [{"voice": 1}]}')
    assert run("--voice", VOICE) == 2
    assert "not a calibration table" in capsys.readouterr().err
    assert out.read_text() == '{"figures": [{"voice": 1}]}'
    assert listener.num_heard == 0


def test_a_folder_that_is_not_there_is_named_before_anything_is_measured(command, capsys, tmp_path):
    run, _, listener = command
    assert run("--voice", VOICE, "--out", str(tmp_path / "no" / "x.json")) == 2
    assert "not a file in an existing folder" in capsys.readouterr().err
    assert run("--voice", "pico:nobody") == 2
    assert listener.num_heard == 0


def test_by_default_each_engines_few_voices_are_measured():
    voices = calibrate.default_voices()
    assert {"hibari:heart", "hibari:heart-gb", "pico:en-US", "pico:en-GB"} <= set(voices)
    assert sum(voice.startswith("espeak:") for voice in voices) == 4
    assert not any(voice.startswith("coqui:") for voice in voices)
