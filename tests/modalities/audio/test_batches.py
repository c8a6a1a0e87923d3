from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tercet.errors import NothingSurvived
from tercet.recipe import Train
from tercet.train.task import Row
from tercet_audio.augment import RATE
from tercet_audio.batches import IGNORED, MAX_LABELS, Listener, Tokens, WindowData, prepare
from tercet_audio.training import SpeechTraining
from tercet_audio.windows import Window


class Letters:
    """A tokenizer of one token per character."""

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return type("Ids", (), {"input_ids": [ord(letter) for letter in text]})


TOKENS = Tokens(Letters(), prefix=[900, 901], end=999)


class FakeEar:
    """A front end whose encoder repeats the clip's first sample; counts what it encoded."""

    def __init__(self):
        self.heard = 0

    def tokens(self):
        return TOKENS

    def features(self, clips, mask_seeds=()):
        assert not mask_seeds
        return torch.tensor([[float(clip[0])] for clip in clips])

    def encode(self, clips, mask_seeds=()):
        self.heard += len(clips)
        return 10 * self.features(clips, mask_seeds)


def ear() -> Any:
    return FakeEar()


WINDOWS = [Window(np.full(RATE, n, np.float32), f"sentence {n}") for n in range(9)]


def test_labels_hold_one_start_one_end_and_mask_only_prefix_and_padding():
    inputs, labels = TOKENS.batch(["ab", "a"])
    assert inputs.tolist() == [[900, 901, 32, 97, 98], [900, 901, 32, 97, 999]]
    assert labels.tolist() == [[IGNORED, 32, 97, 98, 999], [IGNORED, 32, 97, 999, IGNORED]]
    assert TOKENS.fits("x" * (MAX_LABELS - 4))
    assert not TOKENS.fits("x" * (MAX_LABELS - 3))


def test_a_row_is_a_windows_seconds_labels_and_records():
    window = Window(np.zeros(3 * RATE, np.float32), "ab", ("one", "two"))
    data = WindowData([window], [], ear(), seed=4)
    assert data.rows == [Row(3.0, 4, ("one", "two"))]  # a space, two letters and the end count
    assert (data.padded_to, data.unit) == (30.0, "s")
    assert data.describe() | {"padding": 0.9} == data.describe()


def test_a_micro_batch_is_its_rows_and_its_replay():
    data = WindowData(WINDOWS, WINDOWS[:3], ear(), seed=4)
    batch = data.collate([7, 2], [1])
    assert batch["own"]["features"][:, 0].tolist() == [7, 2]
    assert batch["own"]["windows"] == [7, 2]
    assert batch["replay"]["features"].tolist() == [[1]]
    assert data.collate([7], [])["replay"] is None
    assert data.describe()["encoder_cached"] is False


def test_encoder_outputs_are_made_once_and_go_with_their_own_text():
    listen = ear()
    data = WindowData(WINDOWS, WINDOWS[:3], listen, seed=4)
    seen = []
    data.encode(lambda done, total: seen.append((done, total)))
    assert listen.heard == 12
    assert seen[-1] == (12, 12)
    for rows in ([0, 8, 3], [5, 1]):
        batch = data.collate(rows, [])["own"]
        spoken = ["".join(map(chr, row[row < 900].tolist())) for row in batch["inputs"]]
        assert spoken == [f" sentence {int(value)}" for value in batch["encoded"][:, 0] / 10]
    assert listen.heard == 12


def test_without_an_accepted_clip_there_is_nothing_to_train_on():
    with pytest.raises(NothingSurvived, match="tercet report"):
        prepare(ear(), [], [], SpeechTraining(), Train(task="speech-to-text"), 0, lambda *_: None)


@pytest.mark.parametrize(
    ("multilingual", "names"),
    [
        (False, ["<|startoftranscript|>", "<|notimestamps|>"]),
        (True, ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]),
    ],
)
def test_a_multilingual_model_is_told_its_language_and_task(multilingual, names, monkeypatch):
    known = {name: number for number, name in enumerate(names)}
    tokenizer = SimpleNamespace(convert_tokens_to_ids=known.__getitem__, eos_token_id=77)
    monkeypatch.setattr("tercet_audio.transcribe.load_processor", lambda path: SimpleNamespace(tokenizer=tokenizer))
    model = SimpleNamespace(generation_config=SimpleNamespace(is_multilingual=multilingual))
    assert Listener(model, Path(), "de-AT").tokens().prefix == list(range(len(names)))


@pytest.mark.parametrize("cached", [False, True])
def test_labels_go_to_the_device_that_hears(cached):
    """On a GPU the decoder would refuse labels on the CPU; the device without memory stands for one."""

    class Elsewhere(FakeEar):
        def features(self, clips, mask_seeds=()):
            return super().features(clips, mask_seeds).to("meta")

    listen: Any = Elsewhere()
    data = WindowData(WINDOWS, [], listen, seed=4)
    if cached:
        data.encode(lambda *_: None)
    own = data.collate([4, 1], [])["own"]
    assert {value.device.type for value in own.values() if isinstance(value, torch.Tensor)} == {"meta"}
