"""A picture with its caption and questions, as a shard holds it.

`scene` is the specification that the picture was made from, as JSON (plan.py says of what shape); a picture of the
user's own was made from none, so its scene is `{}`: every row parses.
"""

from __future__ import annotations

import io

import pyarrow as pa
from PIL import Image

from tercet.modality import PayloadType
from tercet.randomness import digest
from tercet.records import Columns

UNKNOWN_SCENE = "{}"
QUESTION = pa.struct([("question", pa.string()), ("answer", pa.string()), ("attribute", pa.string())])


def fingerprint(columns: Columns) -> str:
    """Hash the decoded pixels and the caption."""
    with Image.open(io.BytesIO(columns["image"])) as picture:
        pixels = picture.convert("RGB")
        return digest(repr(pixels.size), pixels.tobytes(), columns["caption"])


payload = PayloadType(
    version=1,
    columns=pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("caption", pa.string()),
            ("questions", pa.list_(QUESTION)),
            ("scene", pa.string()),
        ]
    ),
    features={
        "image": {"_type": "Image"},
        "caption": {"_type": "Value", "dtype": "string"},
        "scene": {"_type": "Value", "dtype": "string"},
    },
    fingerprint=fingerprint,
    media={"image": "png"},
)
