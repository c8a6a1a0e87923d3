"""espeak-ng's shared library from the `espeakng-loader` wheel, by ctypes. Imported in the child only (GPL-3)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
RATE_PARAMETER = 1
PHONEMES_IPA = 0x02
FILE_NAMES = {"en-gb": "en"}  # the library, unlike the program, finds this accent by its file's name alone
POS_CHARACTER = 1

SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakLibrary:
    """The library, initialised once and asked in forks."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = os.fsencode(espeakng_loader.get_data_path())
        self.rate = self.library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise OSError(f"espeak-ng can't read its data in {data!r}")
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.heard: list[bytes] = []
        self._callback = SYNTH_CALLBACK(self._hear)  # kept: the library holds only a pointer
        self.library.espeak_SetSynthCallback(self._callback)

    def answer(self, request: dict[str, Any]) -> tuple[bytes, int]:
        """Speak {"text", "voice", "words_per_minute"}, or give IPA for {"text", "voice", "ipa": true}."""
        accent, plus, variant = request["voice"].partition("+")
        name = FILE_NAMES.get(accent, accent) + plus + variant
        if self.library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"no voice {request['voice']!r}")
        text = request["text"].encode()
        if request.get("ipa"):
            return self._phonemes(text), 0
        # breathy voices (+f2) draw noise from a generator of the library's own, seeded with the time of day
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        self.library.espeak_SetParameter(RATE_PARAMETER, int(request["words_per_minute"]), 0)
        failed = self.library.espeak_Synth(
            text, ctypes.c_size_t(len(text) + 1), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None
        )
        if failed:
            raise ValueError(f"espeak-ng refused the text (error {failed})")
        self.library.espeak_Synchronize()
        return b"".join(self.heard), self.rate

    def _hear(self, samples: Any, count: int, _events: int) -> int:
        if samples and count > 0:
            self.heard.append(ctypes.string_at(samples, count * 2))
        return 0

    def _phonemes(self, text: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(text)
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses = []
        while rest.value:  # one clause at a time; the library moves the pointer and clears it at the end
            clauses.append(self.library.espeak_TextToPhonemes(ctypes.byref(rest), CHARS_UTF8, PHONEMES_IPA) or b"")
        return b" ".join(clause for clause in clauses if clause)
