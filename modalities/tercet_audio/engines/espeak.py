"""espeak-ng: formant synthesis with English dialects, always in another process (GPL-3).

The library inside the `espeakng-loader` wheel is preferred, since its pinned version gives the same samples on every
machine; a system `espeak-ng` program is used where the wheel is absent.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from tercet.errors import BackendError
from tercet.modality import Needs
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.engines.base import DIALECT, Settings, Speech, Voice
from tercet_audio.engines.speaking_child import ANSWER_SECONDS, SpeakingChild

ACCENTS = {  # espeak-ng's own voice name -> our tag
    "en-us": "en-US",
    "en-us-nyc": "en-US-nyc",
    "en-gb": "en-GB",
    "en-gb-x-rp": "en-GB-rp",
    "en-gb-scotland": "en-GB-scotland",
    "en-gb-x-gbclan": "en-GB-lancaster",
    "en-gb-x-gbcwmd": "en-GB-westmidlands",
    "en-029": "en-029",
}
SPEAKERS = {"": "male", "+f2": "female", "+f4": "female", "+m3": "male", "+m7": "male"}
WORDS_PER_MINUTE = 160  # at pace 1.0: slower than its own default of 175, and better understood


class EspeakEngine:
    """espeak-ng as a subprocess; `settings.source` may force `wheel` or `system`."""

    name = "espeak"
    licence = "GPL-3.0-or-later (program, run as a subprocess)"
    output_terms = "free"
    deterministic = True
    sample_rate = 22_050
    pace_range = (0.6, 1.8)
    needs = Needs(memory_gib=0.1)

    def __init__(self, settings: Settings) -> None:
        self._wanted = str(settings.get("source", ""))

    @functools.cached_property
    def source(self) -> str:
        """Say where it comes from: `wheel`, `system`, or nothing."""
        found = {
            "wheel": importlib.util.find_spec("espeakng_loader") is not None,
            "system": shutil.which("espeak-ng") is not None,
        }
        return next((name for name, there in found.items() if there and self._wanted in ("", name)), "")

    def voices(self) -> Sequence[Voice]:
        """List every accent with every speaker variant."""
        return tuple(
            Voice(accent + variant, self.name, tag, DIALECT, sex=sex)
            for accent, tag in ACCENTS.items()
            for variant, sex in SPEAKERS.items()
        )

    def missing(self) -> str:
        """Say how to install it."""
        return "" if self.source else "run: pip install 'tercet[audio]', or: apt-get install espeak-ng"

    def use(self) -> ModelUse:
        """Name the source and its version."""
        if self.source == "wheel":
            reference, number = "pkg:espeakng-loader", version("espeakng-loader")
        else:
            reference = "system:espeak-ng"
            number = subprocess.run(
                ["espeak-ng", "--version"], capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
            ).stdout.split("Data at")[0]
        return ModelUse(reference, digest(reference, number), self.licence, self.output_terms)

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak at 22.05 kHz; the seed changes nothing."""
        del seed
        words_per_minute = round(WORDS_PER_MINUTE * pace)
        if self.source == "wheel":
            return self._child.speak(text=text, voice=voice, words_per_minute=words_per_minute)
        return self._run(text, voice, words_per_minute)

    def phonemes(self, text: str, voice: str) -> str:
        """Spell `text` in IPA; needs the wheel."""
        return self._child.ask(text=text, voice=voice, ipa=True)[0].decode()

    @functools.cached_property
    def _child(self) -> SpeakingChild:
        return SpeakingChild("espeak")

    def _run(self, text: str, voice: str, words_per_minute: int) -> Speech:
        import soundfile

        command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-b", "1", "--stdin", "--stdout"]
        try:
            said = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=ANSWER_SECONDS)
            samples, rate = soundfile.read(io.BytesIO(said.stdout), dtype="float32")
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"espeak: no answer in {ANSWER_SECONDS} s", retryable=True) from error
        except (subprocess.CalledProcessError, soundfile.LibsndfileError) as error:
            raise BackendError(f"espeak: voice {voice!r} gave no sound: {error}", retryable=False) from error
        return Speech(np.asarray(samples, np.float32), rate)
