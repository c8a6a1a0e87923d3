"""torchaudio's part in training: rooms, noise, resampling and SpecAugment, each beside a definition of ours."""

import random
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import soxr
import torch

from tercet.compat import find_torchaudio
from tercet.errors import MissingExtra
from tercet.recipe import Train
from tercet.records import Record
from tercet_audio import room
from tercet_audio.augment import RATE, add_noise, augment, shift_speed
from tercet_audio.batches import Listener, WindowData, prepare
from tercet_audio.masking import FRAMES, MELS, mask
from tercet_audio.payload import encode_flac
from tercet_audio.room import convolve, impulse_response, in_a_room, reverberate
from tercet_audio.training import SpeechTraining
from tercet_audio.windows import Segment, Window

functional: Any = find_torchaudio()
TRAIN = Train(task="speech-to-text")
SPEECH = np.random.default_rng(7).standard_normal(RATE).astype(np.float32) * np.float32(0.1)


# rooms


def test_torchaudio_and_scipy_convolve_alike(monkeypatch):
    response = impulse_response(0.4, 3.0, seed=1)
    by_torchaudio = convolve(SPEECH, response)
    monkeypatch.setattr(room, "find_torchaudio", lambda: None)
    by_scipy = convolve(SPEECH, response)
    assert by_torchaudio.dtype == by_scipy.dtype == np.float32
    assert by_torchaudio.shape == by_scipy.shape == (len(SPEECH) + len(response) - 1,)
    assert np.abs(by_torchaudio - by_scipy).max() < 1e-5
    direct = np.convolve(SPEECH[:2000].astype(np.float64), response[:2000].astype(np.float64))
    assert np.abs(by_scipy[:2000] - direct[:2000]).max() < 1e-5


@pytest.mark.parametrize("rt60", [0.15, 0.6])
def test_an_echo_falls_by_sixty_decibels_in_its_time_and_lies_below_the_direct_sound(rt60):
    response = impulse_response(rt60, 6.0, seed=3)
    assert response[0] == 1
    assert 10 * np.log10(np.square(response[1:]).sum()) == pytest.approx(-6, abs=0.01)
    # Schroeder's backward integral, between 5 and 35 dB down: ISO 3382's T30
    decay = 10 * np.log10(np.cumsum(np.square(response[:0:-1]))[::-1] / np.square(response[1:]).sum())
    start, stop = (int(np.flatnonzero(decay < level)[0]) for level in (-5, -35))
    assert 2 * (stop - start) / RATE == pytest.approx(rt60, rel=0.05)


def test_a_room_keeps_length_and_power_and_follows_its_seed():
    heard = in_a_room(SPEECH, random.Random(5))
    assert heard.shape == SPEECH.shape
    assert heard.dtype == np.float32
    assert np.square(heard).sum() == pytest.approx(np.square(SPEECH).sum(), rel=1e-4)
    assert np.array_equal(heard, in_a_room(SPEECH, random.Random(5)))
    assert not np.array_equal(heard, in_a_room(SPEECH, random.Random(6)))
    assert not reverberate(np.zeros(9, np.float32), impulse_response(0.2, 0, 1)).any()


def test_without_rooms_a_clip_is_what_it_was_before_there_were_rooms():
    settings = SpeechTraining()
    assert settings.room_fraction == 0
    draw, again = random.Random(0), random.Random(0)
    clip = augment(SPEECH, settings, draw)
    expected = shift_speed(SPEECH, again.uniform(*settings.speeds))
    assert again.random() > 0.5  # seed 0 draws neither telephone nor tone
    assert again.random() < settings.noise_fraction
    expected = add_noise(expected, again.uniform(10, 35), again.randrange(2**31))
    assert np.array_equal(clip, (expected * again.uniform(0.4, 1.4)).clip(-1, 1).astype(np.float32))


def test_a_room_leaves_every_other_draw_where_it_was():
    plain, roomy = random.Random(3), random.Random(3)
    settings = SpeechTraining(noise_fraction=0, telephone_fraction=0, tone_fraction=0)
    dry = augment(SPEECH, settings, plain)
    wet = augment(SPEECH, settings.model_copy(update={"room_fraction": 1.0}), roomy)
    assert plain.getstate() == roomy.getstate()
    assert len(dry) == len(wet)
    assert not np.allclose(dry, wet, atol=1e-2)
    half = settings.model_copy(update={"room_fraction": 0.5})
    draw = random.Random(4)
    changed = 0
    for _ in range(60):
        at = draw.getstate()
        dry = augment(SPEECH[:400], settings, draw)
        draw.setstate(at)
        changed += not np.array_equal(dry, augment(SPEECH[:400], half, draw))
    assert 18 <= changed <= 42


# noise and resampling


@pytest.mark.parametrize("level_db", [10.0, 35.0])
def test_our_noise_lies_where_torchaudio_puts_it(level_db):
    ours = add_noise(SPEECH, level_db, seed=9).astype(np.float64) - SPEECH
    noise = np.random.Generator(np.random.PCG64(9)).standard_normal(len(SPEECH))
    clip, drawn = (torch.from_numpy(value.astype(np.float64)) for value in (SPEECH, noise))
    theirs = functional.add_noise(clip, drawn, torch.tensor(level_db, dtype=torch.float64)).numpy() - SPEECH
    assert np.corrcoef(ours, theirs)[0, 1] > 1 - 1e-6
    # ours scales by the noise's expected power, torchaudio by that of the samples drawn: 0.1 dB in 16,000 of them
    assert 20 * np.log10(np.linalg.norm(ours) / np.linalg.norm(theirs)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("source", [22_050, 24_000, 44_100, 8_000])
def test_torchaudio_and_soxr_resample_alike_in_the_pass_band(source):
    times = np.arange(source) / source
    highest = 0.8 * min(source, RATE) / 2  # above that, torchaudio's window begins to fall
    tones = sum(np.sin(2 * np.pi * hertz * times) for hertz in np.linspace(100, highest, 7)) / 10
    clip = tones.astype(np.float32)
    ours = soxr.resample(clip, source, RATE)
    theirs = functional.resample(torch.from_numpy(clip), source, RATE, lowpass_filter_width=64).numpy()
    inside = slice(RATE // 10, 9 * RATE // 10)  # both ring at the ends
    assert abs(len(ours) - len(theirs)) <= 1
    assert np.abs(ours[inside] - theirs[inside]).max() < 2e-3  # 54 dB below full scale


# SpecAugment

LOG_MEL = torch.full((80, 3000), 0.5)


def test_masks_follow_their_seed_and_leave_torchs_random_state_and_the_silence_after_the_clip():
    before = torch.get_rng_state()
    masked = mask(LOG_MEL, 2000, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(masked, mask(LOG_MEL, 2000, seed=4))
    assert not torch.equal(masked, mask(LOG_MEL, 2000, seed=5))
    assert torch.equal(masked[:, 2000:], LOG_MEL[:, 2000:])
    assert (LOG_MEL == 0.5).all()


def test_masks_are_few_and_narrow():
    for seed in range(20):
        gone = mask(LOG_MEL, 2000, seed) == 0
        rows, columns = gone[:, :2000].all(dim=1), gone.all(dim=0)
        assert rows.sum() <= 2 * (MELS - 1)
        assert columns.sum() <= 4 * (FRAMES - 1)
        assert torch.equal(gone[:, :2000], rows[:, None] | columns[None, :2000])
    short = mask(LOG_MEL, 100, seed=1) == 0
    assert short.all(dim=0).sum() < 10


@pytest.fixture
def ear(monkeypatch):
    """A front end without a model: every clip has the same features, and the encoder passes them on."""
    listen: Any = Listener.__new__(Listener)
    tokenizer = MagicMock(return_value=SimpleNamespace(input_ids=[5]), eos_token_id=2)
    tokenizer.convert_tokens_to_ids.return_value = 1
    listen.processor, listen.language = SimpleNamespace(tokenizer=tokenizer), "en"
    listen.model = SimpleNamespace(
        device="cpu",
        dtype=torch.float32,
        generation_config=SimpleNamespace(),
        get_encoder=lambda: torch.nn.Linear(1, 1),
    )
    listen.encode = listen.features
    monkeypatch.setattr("tercet_audio.transcribe.log_mel", lambda _, clips: LOG_MEL.repeat(len(clips), 1, 1))
    return listen


@pytest.fixture
def packed(ear):
    windows = [Window(np.ones(9 * RATE, np.float32), (Segment(0, 9, "a"),)) for _ in range(5)]

    def make(*, is_masked):
        return WindowData(windows, windows[:3], ear, seed=6, is_masked=is_masked)

    return make


def test_every_window_has_its_own_mask_whether_it_is_kept_or_made_each_time(packed):
    kept, made = packed(is_masked=True), packed(is_masked=True)
    kept.encode(lambda *_: None)
    for rows, replay in (([0, 3], [2]), ([4, 1], [0]), ([2, 2], [1])):
        first, second = kept.collate(rows, replay), made.collate(rows, replay)
        assert torch.equal(first["own"]["encoded"], second["own"]["features"])
        assert torch.equal(first["replay"]["encoded"][0], LOG_MEL)  # what the base answers stays whole
        assert torch.equal(second["replay"]["features"][0], LOG_MEL)
    masks = {tuple(one.flatten().tolist()) for one in kept.encoded}
    assert len(masks) == 5


def test_without_spec_augment_nothing_is_masked(packed):
    plain = packed(is_masked=False)
    plain.encode(lambda *_: None)
    assert all(torch.equal(one, LOG_MEL) for one in plain.encoded)
    assert SpeechTraining().spec_augment is False


def test_the_recipe_turns_masking_on_and_names_torchaudio_where_it_is_absent(ear, monkeypatch):
    clip = Record("one", "", "audio", "train", {"audio": encode_flac(SPEECH), "text": "a"}, {})
    settings = SpeechTraining(spec_augment=True, variants=1)
    assert prepare(ear, [clip], [], settings, TRAIN, 0, lambda *_: None).is_masked
    assert not prepare(ear, [clip], [], SpeechTraining(variants=1), TRAIN, 0, lambda *_: None).is_masked
    monkeypatch.setattr("tercet_audio.masking.find_torchaudio", lambda: None)
    with pytest.raises(
        MissingExtra, match=r"spec_augment: true needs 'torchaudio'; run: pip install 'tercet\[coqui\]'"
    ):
        prepare(ear, [clip], [], settings, TRAIN, 0, lambda *_: None)
