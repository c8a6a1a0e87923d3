"""Whisper as a listener: greedy transcripts of 16 kHz clips in padded batches of one fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 30 * SAMPLE_RATE  # Whisper hears exactly 30 seconds, padded or cut
MAX_NEW_TOKENS = 128  # 30 s of fast English stay below 120 tokens

Clip = npt.NDArray[np.float32]


class Transcriber:
    """A loaded Whisper, bare or with an adapter, that answers in batches of one size.

    Args:
        model: WhisperForConditionalGeneration.
        processor: its tokenizer and feature extractor.
        language: code such as "en"; ignored by English-only models.
        batch_size: clips per forward pass; a last smaller batch is padded with silence, so that a clip's transcript
            does not depend on how many came with it.
    """

    def __init__(self, model: Any, processor: Any, language: str = "en", batch_size: int = 8) -> None:
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.device = model.device
        self.options = generation_options(model, language)

    @classmethod
    def load(cls, model_dir: Path, language: str = "en", batch_size: int = 8) -> Transcriber:
        """Load a folder with config, safetensors weights, tokenizer and feature extractor, as transformers saves it."""
        return cls(load_whisper(model_dir), load_processor(model_dir), language, batch_size)

    def __call__(self, clips: Sequence[Clip], progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Transcribe mono clips at 16 kHz; what lies behind 30 seconds is not heard."""
        heard: list[str] = []
        for start in range(0, len(clips), self.batch_size):
            batch = clips[start : start + self.batch_size]
            silence = np.zeros(SAMPLE_RATE, np.float32)
            filled = [*batch, *[silence] * (self.batch_size - len(batch))]
            heard += self.read(self.encode(filled))[: len(batch)]
            progress(len(heard))
        return heard

    def encode(self, batch: Sequence[Clip]) -> Any:
        """Run the encoder over a batch; a BaseModelOutput of shape [N, 1500, D]."""
        import torch

        features = log_mel(self.processor, [clip[:WINDOW_SAMPLES] for clip in batch]).to(self.device)
        with torch.inference_mode():
            return self.model.get_encoder()(features)

    def read(self, encoded: Any) -> list[str]:
        """Decode encoder outputs greedily."""
        import torch

        with torch.inference_mode():
            tokens = self.model.generate(encoder_outputs=encoded, **self.options)
        texts: list[str] = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


def load_whisper(model_dir: Path) -> Any:
    """Load a Whisper for inference, in fp32, on a GPU when there is one."""
    from tercet.compat import prepare_torchaudio

    prepare_torchaudio()
    import torch
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()  # generate would warn with every batch of limits that it merges itself
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return WhisperForConditionalGeneration.from_pretrained(str(model_dir), dtype=torch.float32).eval().to(device)


def load_processor(model_dir: Path) -> Any:
    """Load a Whisper's tokenizer and feature extractor."""
    from tercet.compat import prepare_torchaudio

    prepare_torchaudio()
    from transformers import WhisperProcessor

    processor = WhisperProcessor.from_pretrained(str(model_dir))
    tokenizer = processor.tokenizer
    named = set(tokenizer.all_special_tokens)
    unnamed = [one for one in tokenizer.added_tokens_decoder.values() if one.special and one.content not in named]
    if unnamed:  # transformers counts times from the last named one on: <|0.00|> would be read as <|2.12|>
        tokenizer.add_special_tokens({"extra_special_tokens": unnamed})
    return processor


def log_mel(processor: Any, clips: Sequence[Clip]) -> Any:
    """Give Whisper's log-mel features [N, mels, 3000] of clips, padded to 30 seconds."""
    import torch

    with torch.autocast("cpu", enabled=False):  # a spectrogram in bf16 would be none, and numpy can't hold it
        return processor.feature_extractor(list(clips), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features


def generation_options(model: Any, language: str) -> dict[str, Any]:
    """Pin greedy decoding: nothing that an older checkpoint's generation_config holds may steer it."""
    config = model.generation_config
    config.forced_decoder_ids = None
    config.max_length = None
    options: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": 1, "do_sample": False}
    if getattr(config, "is_multilingual", False):
        options |= {"language": language.split("-", maxsplit=1)[0], "task": "transcribe"}
    return options
