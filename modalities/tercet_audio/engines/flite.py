"""flite, where the program is installed: small American voices and a real Scottish one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tercet.errors import BackendError
from tercet.modality import Needs
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.engines.base import NATIVE, Settings, Speech, Voice
from tercet_audio.engines.speaking_child import ANSWER_SECONDS

ACCENTS = {"slt": ("en-US", "female"), "rms": ("en-US", "male"), "awb": ("en-GB-scotland", "male")}


class FliteEngine:
    """The `flite` program (CMU); its voices were recorded from speakers whose accent is published."""

    name = "flite"
    licence = "CMU free licence (program, run as a subprocess)"
    output_terms = "free"
    deterministic = True
    sample_rate = 16_000
    pace_range = (0.7, 1.5)
    needs = Needs(memory_gib=0.1)

    def __init__(self, settings: Settings) -> None:
        del settings  # nothing to set

    def voices(self) -> Sequence[Voice]:
        """List the three voices worth using (kal, the fourth, is an 8 kHz diphone voice)."""
        return tuple(
            Voice(name, self.name, accent, NATIVE, accent_verified=True, sex=sex)
            for name, (accent, sex) in ACCENTS.items()
        )

    def missing(self) -> str:
        """Say how to install it."""
        return "" if shutil.which("flite") else "run: apt-get install flite"

    def use(self) -> ModelUse:
        """Name the program and its version."""
        number = subprocess.run(["flite", "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
        return ModelUse("system:flite", digest("flite", number), self.licence, self.output_terms)

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak at 16 kHz; the seed changes nothing."""
        del seed
        import soundfile

        with tempfile.TemporaryDirectory(prefix="tercet-flite-") as folder:
            wav = Path(folder) / "said.wav"
            command = [
                "flite",
                "-voice",
                voice,
                "--setf",
                f"duration_stretch={1 / pace:.4f}",
                "-t",
                text,
                "-o",
                str(wav),
            ]
            try:
                subprocess.run(command, capture_output=True, check=True, timeout=ANSWER_SECONDS)
                samples, rate = soundfile.read(wav, dtype="float32")
            except subprocess.TimeoutExpired as error:
                raise BackendError(f"flite: no answer in {ANSWER_SECONDS} s", retryable=True) from error
            except (subprocess.CalledProcessError, soundfile.LibsndfileError) as error:
                raise BackendError(f"flite: voice {voice!r} gave no sound: {error}", retryable=False) from error
        return Speech(np.asarray(samples, np.float32), rate)
