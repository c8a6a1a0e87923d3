"""The Coqui engine against the real library, on a tiny VITS of random weights: noise, and never in a data set."""

import json
from pathlib import Path

import numpy as np
import pytest

from tercet.compat import prepare_torchaudio
from tercet.errors import BackendError, UsageError
from tercet_audio.engines import engine, ready_engine
from tercet_audio.engines.coqui import CoquiEngine

RATE = 16_000
TEXT = "Hello there."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Build a VITS of 2 speakers that reads characters."""
    prepare_torchaudio()
    import torch
    from TTS.config.shared_configs import BaseAudioConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig
    from TTS.tts.models.vits import Vits

    folder = tmp_path_factory.mktemp("vits")
    (folder / "speakers.json").write_text(json.dumps({"ann": 0, "bob": 1}))
    args = VitsArgs(
        use_speaker_embedding=True,
        speakers_file=str(folder / "speakers.json"),
        speaker_embedding_channels=16,
        hidden_channels=16,
        hidden_channels_ffn_text_encoder=32,
        num_heads_text_encoder=2,
        num_layers_text_encoder=1,
        num_layers_posterior_encoder=1,
        num_layers_flow=1,
        upsample_initial_channel_decoder=32,
        init_discriminator=False,
    )
    config = VitsConfig(
        model_args=args,
        audio=BaseAudioConfig(sample_rate=RATE),
        text_cleaner="english_cleaners",
        use_phonemes=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Vits(config)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict(), "config": config.to_dict()}, folder / "model.pth")
    return {"model_path": str(folder / "model.pth"), "config_path": str(folder / "config.json")}


@pytest.fixture(scope="module")
def coqui(checkpoint):
    return ready_engine("coqui", checkpoint)


def test_a_voice_per_speaker_is_listed_from_the_configuration(coqui):
    assert [voice.id for voice in coqui.voices()] == ["coqui:ann", "coqui:bob"]
    assert not any(voice.accent_verified for voice in coqui.voices())
    assert (coqui.sample_rate, coqui.pace_range) == (RATE, (0.75, 1.35))


def test_it_speaks_finite_samples_at_the_models_rate(coqui):
    speech = coqui.speak(TEXT, "ann", 1.0, 1)
    assert speech.rate == RATE
    assert speech.samples.dtype == np.float32
    assert len(speech.samples) > 1000
    assert np.isfinite(speech.samples).all()
    assert 0 < np.abs(speech.samples).max() <= 1


def test_pace_changes_the_length_and_is_not_kept(coqui):
    slow, usual, fast = (len(coqui.speak(TEXT, "ann", pace, 1).samples) for pace in (0.75, 1.0, 1.35))
    assert slow > usual > fast
    assert len(coqui.speak(TEXT, "ann", 1.0, 1).samples) == usual


def test_speakers_differ_and_the_seed_repeats_the_samples(coqui, checkpoint):
    first = coqui.speak(TEXT, "ann", 1.0, 1).samples
    coqui.speak("Something else in between.", "bob", 1.3, 2)
    assert np.array_equal(first, coqui.speak(TEXT, "ann", 1.0, 1).samples)
    assert np.array_equal(first, ready_engine("coqui", checkpoint).speak(TEXT, "ann", 1.0, 1).samples)
    for voice, seed in (("bob", 1), ("ann", 2)):
        other = coqui.speak(TEXT, voice, 1.0, seed).samples
        assert len(other) != len(first) or not np.allclose(other, first)


def test_speaking_leaves_torchs_own_random_state_alone(coqui):
    import torch

    before = torch.random.get_rng_state()
    coqui.speak(TEXT, "ann", 1.0, 7)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_use_names_the_bytes_and_the_terms_of_an_own_checkpoint_are_unknown(coqui, checkpoint, tmp_path):
    assert coqui.use().output_terms == "unknown"
    assert engine("coqui", checkpoint | {"licence": "Apache-2.0"}).output_terms == "free"
    changed = tmp_path / "config.json"
    config = json.loads(Path(checkpoint["config_path"]).read_text())
    changed.write_text(json.dumps(config | {"run_name": "another"}))
    assert engine("coqui", checkpoint | {"config_path": str(changed)}).use().digest != coqui.use().digest
    assert engine("coqui", checkpoint).use() == coqui.use()


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        ("tts_models/en/vctk/vits", "free"),
        ("tts_models/multilingual/multi-dataset/xtts_v2", "research"),
        ("tts_models/multilingual/multi-dataset/your_tts", "research"),
        ("tts_models/de/nobody/has_read", "unknown"),
    ],
)
def test_a_listed_model_has_terms_and_says_how_to_get_it(model, terms, monkeypatch, tmp_path):
    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    named = engine("coqui", {"model": model})
    assert named.output_terms == terms
    assert not named.voices()
    with pytest.raises(UsageError, match="COQUI_TOS_AGREED=1" if "xtts" in model else "HF_HUB_OFFLINE forbids"):
        ready_engine("coqui", {"model": model})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_path": "/nowhere/model.pth"}, r"settings.model_path: no file /nowhere/model.pth.*working here: "),
        ({"config_path": "/nowhere/config.json"}, "settings.config_path: no file /nowhere/config.json"),
        ({"model_path": ""}, "model_path is not set"),
        ({"modle_path": "x"}, "no setting 'modle_path'; there are: model_path, config_path"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(checkpoint, change, message):
    with pytest.raises(UsageError, match=message):
        ready_engine("coqui", checkpoint | change)


def test_a_configuration_that_is_no_json_is_named(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UsageError, match="is no JSON configuration"):
        ready_engine("coqui", checkpoint | {"config_path": str(tmp_path / "config.json")})


def test_a_checkpoint_that_runs_code_is_refused(checkpoint, tmp_path):
    import torch

    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    torch.save({"model": Harm(), "config": {}}, tmp_path / "model.pth")
    with pytest.raises(BackendError, match="can't be loaded"):
        ready_engine("coqui", checkpoint | {"model_path": str(tmp_path / "model.pth")}).speak(TEXT, "ann", 1.0, 1)
    assert not (tmp_path / "harmed").exists()


def test_an_unknown_speaker_is_a_failure_that_is_not_tried_again(coqui):
    with pytest.raises(BackendError, match="nobody") as caught:
        coqui.speak(TEXT, "nobody", 1.0, 1)
    assert not caught.value.retryable


def test_without_settings_it_has_no_voice_and_says_what_to_name():
    assert CoquiEngine({}).voices() == ()
    assert "name a checkpoint" in CoquiEngine({}).missing()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert CoquiEngine({}).missing() == "run: pip install 'tercet[coqui]'"
