"""hibari: a small neural voice carried whole in its wheel (onnxruntime, repeatable by seed).

Only the bundled American voice is used: the others would be downloaded at the first word. `heart-gb` is the same
speaker reading the British lexicon, with the symbols she was never trained on mapped to her nearest trained ones.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from tercet.modality import Needs
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.engines.base import NATIVE, PHONEME_RULES, Settings, Speech, Voice

# British symbols (hot, go, bath, there, nurse) -> the American voice's own; length marks are unknown to it
TO_TRAINED = str.maketrans({"ɒ": "ɑ", "Q": "O", "a": "æ", "ː": None})


class HibariEngine:
    """The `hibari-tts` package."""

    name = "hibari"
    licence = "Apache-2.0"
    output_terms = "free"
    deterministic = True
    sample_rate = 24_000
    pace_range = (0.7, 1.5)
    needs = Needs(memory_gib=0.4, model=True)

    def __init__(self, settings: Settings) -> None:
        del settings  # nothing to set

    def voices(self) -> Sequence[Voice]:
        """List the bundled speaker, in her own accent and with British phonemes."""
        return (
            Voice("heart", self.name, "en-US", NATIVE, accent_verified=True, sex="female"),
            Voice("heart-gb", self.name, "en-GB", PHONEME_RULES, sex="female"),
        )

    def missing(self) -> str:
        """Say how to install it."""
        return "" if importlib.util.find_spec("hibari") else "run: pip install 'tercet[audio]'"

    def use(self) -> ModelUse:
        """Name the package and its version, which pins the weights inside it."""
        number = version("hibari-tts")
        return ModelUse("pkg:hibari-tts", digest("hibari-tts", number), self.licence, self.output_terms)

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak at 24 kHz; the seed fixes the noise component."""
        speaker = self._speaker
        if voice == "heart":
            return Speech(np.asarray(speaker(text, speed=pace, seed=seed), np.float32), self.sample_rate)
        sentences = [self._british(sentence).translate(TO_TRAINED) for sentence in speaker.split_sentences(text)]
        spoken = [speaker.from_phonemes(sentence, speed=pace, seed=seed) for sentence in sentences if sentence]
        samples = np.concatenate(spoken) if spoken else np.zeros(0)
        return Speech(np.asarray(samples, np.float32), self.sample_rate)

    @functools.cached_property
    def _speaker(self) -> Any:
        from hibari import Hibari

        return Hibari(threads=1)

    @functools.cached_property
    def _british(self) -> Any:
        from hibari.g2p import G2P

        return G2P(british=True)
