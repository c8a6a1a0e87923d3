"""A small payload type with a sound, a picture and text, for the tests of the store."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image

from tercet.modality import PayloadType
from tercet.randomness import digest
from tercet.records import Columns, Record, Verdict, record_id
from tercet.store.schema import MEDIA

COLUMNS = pa.schema(
    [
        ("audio", MEDIA),
        ("image", MEDIA),
        ("text", pa.string()),
        ("tags", pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float64())]))),
        ("count", pa.int64()),
    ]
)
FEATURES = {"audio": {"_type": "Audio", "sampling_rate": 16000}, "image": {"_type": "Image"}}


def fingerprint(payload: Columns) -> str:
    return digest(payload["audio"], payload["image"], json.dumps([payload[name] for name in ("text", "tags", "count")]))


toy = PayloadType(1, COLUMNS, FEATURES, fingerprint, {"audio": "flac", "image": "png"})
notes = PayloadType(1, pa.schema([("text", pa.string())]), {}, lambda payload: digest(payload["text"]))


def flac(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(samples) / 9).astype(np.float32) * 0.5, 16000, format="FLAC")
    return file.getvalue()


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 255 - shade)).save(file, "PNG")
    return file.getvalue()


def toy_record(number: int, split: str = "train") -> Record:
    payload = {
        "audio": flac(1600 + number),
        "image": png(number % 256),
        "text": f"sentence {number} – żółć",
        "tags": [{"name": "ibuprofen", "weight": number / 3}],
        "count": number,
    }
    key = digest("toy", str(number))
    verdicts = (Verdict("duration", True, 0.1, 0.05), Verdict("judge", True, label="robustness"))
    lineage = {"recipe": "r", "item": key, "parents": [], "seed": 2**62 + number}
    return Record(record_id("toy", key, fingerprint(payload)), key, "toy", split, payload, lineage, verdicts)


def note_record(text: str, number: int = 0, split: str = "train") -> Record:
    key = digest("note", str(number))
    return Record(record_id("note", key, digest(text)), key, "note", split, {"text": text}, {"seed": number})
