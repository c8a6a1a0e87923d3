"""What a speech engine declares and does; its results, and the errors that say what is missing.

An engine's class may be asked for its voices and terms without loading anything; `speak` loads what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tercet.modality import Needs
from tercet.records import ModelUse

Samples = npt.NDArray[np.float32]

NATIVE = "native_voice"  # the speaker has the accent
DIALECT = "dialect_engine"  # the engine's own dialect rules speak it
PHONEME_RULES = "phoneme_rules"  # another accent's phonemes, read by a speaker who has not got it
REAL = "recording"  # a user's own clip


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice of an engine; `accent_verified` is true only where a person or a published speaker table says so."""

    name: str
    engine: str
    accent: str  # a language tag, as far as one exists: en-US, en-GB-scotland
    accent_mechanism: str
    accent_verified: bool = False
    sex: str = ""  # "female", "male", or "" where nobody says

    @property
    def id(self) -> str:
        """Name for recipes, calibration and reports: `engine:name`."""
        return f"{self.engine}:{self.name}"


@dataclass(frozen=True, slots=True)
class Speech:
    """What an engine said: mono samples in [-1, 1] at `rate` Hz."""

    samples: Samples
    rate: int


class SpeechEngine(Protocol):
    """A text-to-speech system.

    `pace_range` is what its duration control can do without damage; `deterministic` promises the same samples for
    the same (text, voice, pace, seed) on one machine. `output_terms` is "free", "research" or "unknown".
    """

    name: str
    licence: str
    output_terms: str
    deterministic: bool
    sample_rate: int
    pace_range: tuple[float, float]
    needs: Needs

    def voices(self) -> Sequence[Voice]:
        """List the voices, without loading a model."""

    def missing(self) -> str:
        """Say what must be installed before it can speak, as a command; empty when it can."""

    def use(self) -> ModelUse:
        """Say what speaks, for the lineage; only called when nothing is missing."""

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak `text`; a pace of 1.15 takes about 1/1.15 of the time."""


Settings = Mapping[str, Any]  # one engine's part of the recipe
