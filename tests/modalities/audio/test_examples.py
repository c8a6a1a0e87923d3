"""The user's recordings become records; a bad one is that row's failure and says what to mend."""

import hashlib
import json

import numpy as np
import pytest
import soundfile

from tercet.modality import NoAnswers, Resources
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.records import Item, Made
from tercet.store.shards import read_records
from tercet_audio.examples import Examples
from tercet_audio.payload import decode_clip
from tercet_audio.recipe import AudioRecipe

ROW = {"text": "Two tablets of warfarin.", "term": "warfarin", "speaker": "ann", "accent": "en-GB", "licence": "CC0"}


def write(path, seconds=1.2, rate=44_100, channels=2, **how):
    hertz = 300 * np.arange(round(seconds * rate)) / rate
    samples = np.stack([0.4 * np.sin(2 * np.pi * hertz), np.zeros(len(hertz))], axis=1)[:, :channels]
    soundfile.write(path, samples, rate, **how)


def take(folder, name, row=ROW, planned=None):
    path = folder / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32] if path.is_file() else "0" * 32
    spec = {"file": name, "digest": planned or digest, "row": row}
    resources = Resources(0, "en", cores=1, answers=NoAnswers(), examples_root=str(folder))
    return next(Examples(AudioRecipe(), resources)([Item("audio", "examples", "train", spec, 0)]))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_every_usual_format_becomes_mono_16_khz(tmp_path, name):
    write(tmp_path / name)
    made = take(tmp_path, name)
    assert isinstance(made, Made), made
    clip = decode_clip(made.payload["audio"])
    assert len(clip) / 16_000 == pytest.approx(1.2, abs=0.06)  # MP3 pads its frames
    assert np.abs(clip[4000:12_000]).max() == pytest.approx(0.2, abs=0.02)  # the mean of sound and silence


def test_a_recording_keeps_who_spoke_and_the_manifests_other_fields(tmp_path):
    write(tmp_path / "a.wav")
    made = take(tmp_path, "a.wav")
    expected = {"voice": "real:ann", "accent": "en-GB", "accent_mechanism": "recording", "accent_verified": True}
    expected |= {"term": "warfarin", "phrase": ROW["text"], "realised_pace": None, "engine": "real"}
    assert {name: made.payload[name] for name in expected} == expected
    assert made.parameters["fields"] == {"licence": "CC0"}
    assert made.parameters["file"] == "a.wav"
    assert made.parameters["parents"][0].startswith("example:")
    plain = take(tmp_path, "a.wav", {"text": "Hello."}).payload
    assert (plain["voice"], plain["accent"], plain["accent_verified"]) == ("real:unknown", "unknown", False)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("long.wav", ROW, "long.wav: 31.0 s long; cut it into pieces of at most 30 s"),
        ("empty.wav", ROW, "empty.wav: holds no sound"),
        ("nan.wav", ROW, "nan.wav: holds samples that are no numbers"),
        ("junk.wav", ROW, "junk.wav: not a sound file that can be read"),
        ("gone.wav", ROW, "gone.wav: can't be read: No such file or directory"),
        ("good.wav", {"text": "  "}, "good.wav: no text; say in the manifest's column `text`"),
        ("good.wav", {"speaker": "ann"}, "good.wav: no text"),
        ("", {"text": "Hi."}, "the row names no file; give a folder with a manifest"),
    ],
)
def test_a_bad_recording_is_a_failure_that_names_the_file_and_the_fix(tmp_path, name, row, said):
    write(tmp_path / "good.wav")
    write(tmp_path / "long.wav", seconds=31, rate=8000)
    write(tmp_path / "empty.wav", seconds=0)
    soundfile.write(tmp_path / "nan.wav", np.full(999, np.nan), 16_000, subtype="FLOAT")
    (tmp_path / "junk.wav").write_bytes(b"RIFF and nothing else")
    failure = take(tmp_path, name, row)
    assert said in failure.message
    assert (failure.error, failure.retryable) == ("BadExample", False)


def test_a_file_that_changed_after_planning_is_not_taken(tmp_path):
    write(tmp_path / "a.wav")
    assert "changed since the run was planned" in take(tmp_path, "a.wav", planned="f" * 32).message


def test_recordings_run_beside_a_bad_one_and_land_in_shards(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder / "a.wav")
    write(folder / "b.wav", seconds=2)
    (folder / "c.wav").write_bytes(b"nothing")
    rows = [{"file": f"{name}.wav", "text": f"Sentence {name}."} for name in "abc"]
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "own.yaml").write_text(
        "version: 1\nname: own\nsources: {examples: [{modality: audio, path: mine}]}\n"
        "modalities: {audio: {general: {clips: 0, replay_clips: 0}, gates: {duration: null, "
        "silence: null, clipping: null, character_rate: null, round_trip: null}}}\n"
    )
    result = run_recipe(load_recipe(tmp_path / "own.yaml"), workers=0)
    texts = sorted(record.payload["text"] for record in read_records(result.run_dir, "audio", "train"))
    assert texts == ["Sentence a.", "Sentence b."]
    errors = result.summary["modalities"]["audio"]["errors"]
    assert [(error["error"], error["count"]) for error in errors] == [("BadExample", 1)]
