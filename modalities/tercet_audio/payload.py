"""A spoken sentence as a shard holds it: 16 kHz mono FLAC, what was written and what was said, and by whom.

`text` is what a recogniser should write, `spoken` what the engine was given (a term may be read differently).
`phrase` names the source sentence: the carrier with its slot, or the general sentence itself. Clips of one source
sentence are no independent samples, so statistics resample by it.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import soundfile

from tercet.errors import SourceError
from tercet.modality import PayloadType
from tercet.randomness import digest
from tercet.records import Columns
from tercet_audio.augment import RATE, Clip

FULL_SCALE = 32767
TEXT_COLUMNS = ("text", "spoken", "term", "phrase", "voice", "engine", "accent", "accent_mechanism")
NUMBER_COLUMNS = ("pace", "realised_pace", "seconds")


def encode_flac(samples: Clip) -> bytes:
    """Encode mono 16 kHz samples in [-1, 1] as 16-bit FLAC; what lies outside is cut off."""
    pcm = np.round(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_clip(data: bytes) -> Clip:
    """Decode a mono 16 kHz file to float32 samples in [-1, 1].

    Raises:
        SourceError: another rate or more channels; a shard of ours never holds that.
    """
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != RATE or samples.ndim != 1:
        raise SourceError(f"a clip has {rate} Hz and shape {samples.shape}; it must be mono 16 kHz")
    clip: Clip = samples
    return clip


def fingerprint(columns: Columns) -> str:
    """Hash the decoded samples and the text."""
    samples, rate = soundfile.read(io.BytesIO(columns["audio"]), dtype="int16")
    return digest(str(rate), samples.tobytes(), columns["text"])


payload = PayloadType(
    version=1,
    columns=pa.schema(
        [
            ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            *((name, pa.string()) for name in TEXT_COLUMNS),
            ("accent_verified", pa.bool_()),
            *((name, pa.float64()) for name in NUMBER_COLUMNS),
        ]
    ),
    features={
        "audio": {"_type": "Audio", "sampling_rate": RATE},
        **{name: {"_type": "Value", "dtype": "string"} for name in TEXT_COLUMNS},
        "accent_verified": {"_type": "Value", "dtype": "bool"},
        **{name: {"_type": "Value", "dtype": "float64"} for name in NUMBER_COLUMNS},
    },
    fingerprint=fingerprint,
    media={"audio": "flac"},
)
