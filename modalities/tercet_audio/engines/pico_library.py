"""Pico inside the child process. Imported there only."""

from __future__ import annotations

from typing import Any

import py_nanotts

RATE = 16_000


class PicoLibrary:
    """The `py-nanotts` extension."""

    def answer(self, request: dict[str, Any]) -> tuple[bytes, int]:
        """Speak {"text", "voice", "pace"} at 16 kHz."""
        try:
            pcm = py_nanotts.NanoTTS().speak(request["text"], voice=request["voice"], speed=request["pace"])
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        return pcm, RATE
