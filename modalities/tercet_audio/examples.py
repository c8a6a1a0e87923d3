"""The user's own recordings: each manifest row with a file and its text becomes a record beside the spoken ones.

A line of `manifest.jsonl`: `{"file": "a.wav", "text": "Two tablets of warfarin.", "term": "warfarin", "speaker": "ann",
"accent": "en-GB", "licence": "CC0-1.0"}`; only `file` and `text` are needed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile

from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json, digest
from tercet.records import Failure, Item, Made, ModelUse
from tercet_audio.augment import RATE, Clip
from tercet_audio.clip import to_16_khz
from tercet_audio.engines.base import REAL
from tercet_audio.payload import encode_flac
from tercet_audio.recipe import AudioRecipe

OWN_DATA = ModelUse("user:examples", "", "user", "free")  # the user's own data, used on the user's own terms
COLUMNS = ("text", "term", "speaker", "voice", "accent")
MAX_SECONDS = 30  # what Whisper hears at once


class BadRecording(Exception):
    """A manifest row can't become a record; the text says what was found and how to mend it."""


class Examples:
    """Takes recordings with their transcripts; a bad one is that item's failure and says what to mend."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.3)
    batch_size: ClassVar[int] = 32

    def __init__(self, section: AudioRecipe, resources: Resources) -> None:
        del section  # nothing in it concerns recordings
        self.root = Path(resources.examples_root)

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Give one payload per row; the row's other fields (its licence, say) go into the lineage untouched."""
        for item in items:
            try:
                yield self._make(item)
            except BadRecording as error:
                where = item.spec["file"] or canonical_json(item.spec["row"])[:60]
                yield Failure("generate", "BadExample", f"{where}: {error}", retryable=False)

    def _make(self, item: Item) -> Made:
        row: Mapping[str, Any] = item.spec["row"]
        text = _text(row, "text").strip()
        if not text:
            raise BadRecording("no text; say in the manifest's column `text` what is spoken")
        clip = decode(self._read(item.spec["file"], item.spec["digest"]))
        accent = _text(row, "accent")
        payload = {
            "audio": encode_flac(clip),
            "text": text,
            "spoken": text,
            "term": _text(row, "term"),
            "phrase": text,
            "voice": "real:" + (_text(row, "speaker") or _text(row, "voice") or "unknown"),
            "engine": "real",
            "accent": accent or "unknown",
            "accent_mechanism": REAL,
            "accent_verified": bool(accent),  # the user's manifest says so
            "pace": 1.0,
            "realised_pace": None,
            "seconds": round(len(clip) / RATE, 4),
        }
        own = {name: value for name, value in row.items() if name not in COLUMNS}
        parents = [f"example:{digest(item.spec['digest'], dict(row))}"]
        parameters = {"parents": parents, "file": item.spec["file"], **({"fields": own} if own else {})}
        return Made(payload, OWN_DATA, parameters)

    def _read(self, name: str, planned: str) -> bytes:
        if not name:
            raise BadRecording("the row names no file; give a folder with a manifest (file, text), not a .jsonl file")
        try:
            data = (self.root / name).read_bytes()
        except OSError as error:
            raise BadRecording(f"can't be read: {error.strerror}; put it back or remove its row") from error
        if not hashlib.sha256(data).hexdigest().startswith(planned):
            raise BadRecording("the file changed since the run was planned; start the run again")
        return data


def decode(data: bytes) -> Clip:
    """Decode a WAV, FLAC, OGG or MP3 file to mono at 16 kHz.

    Raises:
        BadRecording: no sound, more than MAX_SECONDS of it, or a format that libsndfile can't read.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, seconds = file.samplerate, len(file) / file.samplerate
            if seconds > MAX_SECONDS:
                raise BadRecording(f"{seconds:.1f} s long; cut it into pieces of at most {MAX_SECONDS} s, each a row")
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise BadRecording("not a sound file that can be read; convert it to WAV or FLAC") from error
    if not len(samples):
        raise BadRecording("holds no sound; record it again or remove its row")
    if not np.isfinite(samples).all():
        raise BadRecording("holds samples that are no numbers; export it again")
    return to_16_khz(samples.mean(axis=1, dtype=np.float32), rate)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)
