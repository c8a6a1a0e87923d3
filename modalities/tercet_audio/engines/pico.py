"""Pico (SVOX), through the `py-nanotts` wheel: one American and one British voice."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from importlib.metadata import version

from tercet.modality import Needs
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.engines.base import NATIVE, Settings, Speech, Voice
from tercet_audio.engines.speaking_child import SpeakingChild


class PicoEngine:
    """The `py-nanotts` package, in a child process.

    Pico reads memory that it has not written: in one process 98 of 120 repeated calls gave other samples. Large
    blocks straight from the kernel are zeroed, which makes it repeatable (0 of 120).
    """

    name = "pico"
    licence = "Apache-2.0"
    output_terms = "free"
    deterministic = True
    sample_rate = 16_000
    pace_range = (0.6, 1.6)
    needs = Needs(memory_gib=0.1)

    def __init__(self, settings: Settings) -> None:
        del settings  # nothing to set

    def voices(self) -> Sequence[Voice]:
        """List the English voices."""
        return (
            Voice("en-US", self.name, "en-US", NATIVE, accent_verified=True, sex="female"),
            Voice("en-GB", self.name, "en-GB", NATIVE, accent_verified=True, sex="female"),
        )

    def missing(self) -> str:
        """Say how to install it."""
        return "" if importlib.util.find_spec("py_nanotts") else "run: pip install 'tercet[audio]'"

    def use(self) -> ModelUse:
        """Name the package and its version, which pins the voices inside it."""
        number = version("py-nanotts")
        return ModelUse("pkg:py-nanotts", digest("py-nanotts", number), self.licence, self.output_terms)

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak at 16 kHz; the seed changes nothing."""
        del seed
        return self._child.speak(text=text, voice=voice, pace=pace)

    @functools.cached_property
    def _child(self) -> SpeakingChild:
        return SpeakingChild("pico", {"MALLOC_MMAP_THRESHOLD_": "65536"})
