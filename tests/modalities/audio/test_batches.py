from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from tercet.errors import NothingSurvived
from tercet.recipe import Train
from tercet.records import Record
from tercet.train.order import Order
from tercet.train.task import Row
from tercet_audio.augment import RATE
from tercet_audio.batches import Listener, WindowData, prepare
from tercet_audio.labels import IGNORED, MAX_LABELS, Tokens
from tercet_audio.payload import encode_flac
from tercet_audio.training import SpeechTraining
from tercet_audio.windows import Segment, Window


class Letters:
    """A tokenizer of one token per character."""

    def __call__(self, text, add_special_tokens, split_special_tokens):
        assert split_special_tokens and not add_special_tokens
        return type("Ids", (), {"input_ids": [ord(letter) for letter in text]})


TOKENS = Tokens(Letters(), prefix=[900, 901], end=999)


def window(text, seconds=1.0, value=0.0, records=()):
    return Window(np.full(int(seconds * RATE), value, np.float32), (Segment(0.0, seconds, text),), records)


class FakeEar:
    """A front end whose encoder repeats the clip's first sample; counts what it encoded."""

    is_frozen = False

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


WINDOWS = [window(f"sentence {n}", value=n) for n in range(9)]


def clip(name, text, seconds=1.0):
    audio = encode_flac(np.full(int(seconds * RATE), 0.1, np.float32))
    return Record(name, "", "audio", "train", {"audio": audio, "text": text}, {})


def prepared(clips, replay=(), **training):
    settings = SpeechTraining(**{"variants": 1, "speeds": (1, 1), **training})
    return prepare(ear(), clips, replay, settings, Train(task="speech-to-text"), 0, lambda *_: None)


def test_labels_hold_one_start_one_end_and_mask_only_prefix_and_padding():
    inputs, labels = TOKENS.batch([window("ab"), window("a")])
    assert inputs.tolist() == [[900, 901, 32, 97, 98], [900, 901, 32, 97, 999]]
    assert labels.tolist() == [[IGNORED, 32, 97, 98, 999], [IGNORED, 32, 97, 999, IGNORED]]


def test_a_row_is_a_windows_seconds_labels_and_records():
    data = WindowData([window("ab", 3.0, records=("one", "two"))], [], ear(), seed=4)
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


def test_a_budget_counts_padded_windows_and_the_replay_share_their_number():
    data = WindowData(WINDOWS, WINDOWS[:3], ear(), seed=4)
    order = Order(data, micro_batch=2, budget=None, accumulate=1, replay=0.5, seed=0)
    assert [(len(part.rows), len(part.replay)) for part in order.step(0)] == [(2, 2)]
    order = Order(data, micro_batch=2, budget=90, accumulate=1, replay=0, seed=0)
    assert [len(order.step(step)[0].rows) for step in range(3)] == [3, 3, 3]  # a second of speech is 30 s padded


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
        prepared([])


def test_what_cannot_be_trained_on_is_left_out_and_named():
    most = MAX_LABELS - 3 - 2  # the prefix and the end, the clip's two times; a letter is a token
    clips = [clip("fits", "x" * (most - 1)), clip("long", "x" * most), clip("blank", " "), clip("slow", "abc", 29.9)]
    data = prepared(clips, clips[1:3], speeds=(0.99, 0.99))
    assert [row.records for row in data.rows] == [("fits",)]
    assert data.describe()["left_out"] == (
        f"1 clips without text: blank; 1 clips of more than {MAX_LABELS - 3} tokens: long; "
        "1 copies of clips that are slowed down beyond 30 s; "
        f"replay: 1 clips without text: blank; replay: 1 clips of more than {MAX_LABELS - 3} tokens: long"
    )
    inputs, labels = data.tokens.batch(data.windows)
    assert inputs.shape == labels.shape == (1, MAX_LABELS - 3)
    assert prepared(clips[:1]).describe()["left_out"] == "nothing"


def test_a_recipe_whose_every_clip_is_too_long_is_told_so_and_shown_which():
    clips = [clip(f"clip-{n:02}", "x" * 500) for n in range(10)]
    named = ", ".join(f"clip-{n:02}" for n in range(8))
    with pytest.raises(NothingSurvived, match=f"448 tokens; say shorter sentences .*10 clips .*: {named} and 2 more"):
        prepared(clips)


def test_clips_whose_texts_together_are_too_long_come_in_windows_of_their_own():
    data = prepared([clip(str(n), "x" * 300) for n in range(4)], short_windows=0)
    assert len(data.rows) == 4
    assert data.describe()["left_out"] == "nothing"


def test_the_log_counts_windows_with_times():
    assert prepared([clip("a", "abc")], timestamps=1).describe()["windows_with_timestamps"] == 1
    assert prepared([clip("a", "abc")]).describe()["windows_with_timestamps"] == 0


def test_a_base_in_bf16_hears_features_in_bf16():
    config = WhisperConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=60_000,
    )  # fmt: skip
    listen: Any = Listener.__new__(Listener)
    listen.model = WhisperForConditionalGeneration(config).to(torch.bfloat16)
    listen.processor = SimpleNamespace(feature_extractor=WhisperFeatureExtractor())
    encoded = listen.encode([np.zeros(RATE, np.float32)])
    assert encoded.dtype == torch.bfloat16
    assert encoded.nbytes == pytest.approx(listen.window_gib * 2**30)


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
