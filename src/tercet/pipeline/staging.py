"""Between a generator and a shard a payload waits here: media as blobs, the rest packed for the journal."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tercet.errors import CorruptError
from tercet.modality import PayloadType
from tercet.randomness import canonical_json
from tercet.records import Columns, Made, ModelUse
from tercet.store.blobs import BlobStore

INLINE_BYTES = 700  # journal rows stay under 1 KB; what is larger goes into a blob
BLOB = "$blob"


@dataclass(frozen=True, slots=True)
class Staged:
    """A made payload as the journal keeps it."""

    fingerprint: str
    packed: bytes
    blobs: tuple[str, ...]
    model: ModelUse


def stage(made: Made, payload_type: PayloadType, blobs: BlobStore) -> Staged:
    """Put media bytes into blobs and pack the rest.

    Raises:
        ValueError: the payload lacks a column, has one too many, or holds a value that JSON can't.
    """
    expected = set(payload_type.columns.names)
    if set(made.payload) != expected:
        raise ValueError(f"payload has columns {sorted(made.payload)}; its schema has {sorted(expected)}")
    kept: list[str] = []
    columns: dict[str, Any] = {}
    for name, value in made.payload.items():
        if isinstance(value, bytes):
            kept.append(blobs.put(value))
            columns[name] = {BLOB: kept[-1]}
        else:
            columns[name] = value
    packed = zlib.compress(canonical_json({"payload": columns, "parameters": dict(made.parameters)}).encode(), 1)
    if len(packed) > INLINE_BYTES:
        kept.append(blobs.put(packed))
        packed = zlib.compress(canonical_json({BLOB: kept[-1]}).encode(), 1)
    return Staged(payload_type.fingerprint(made.payload), packed, tuple(kept), made.model)


def unstage(packed: bytes, blobs: BlobStore) -> tuple[Columns, Mapping[str, Any]]:
    """Return (payload, parameters) of a staged payload.

    Raises:
        CorruptError: a blob is missing or differs from its digest.
    """
    try:
        document = json.loads(zlib.decompress(packed))
        if BLOB in document:
            document = json.loads(zlib.decompress(blobs.get(document[BLOB])))
    except (zlib.error, ValueError) as error:
        raise CorruptError(f"the journal holds a payload that can't be unpacked: {error}") from error
    payload = {
        name: blobs.get(value[BLOB]) if isinstance(value, dict) and BLOB in value else value
        for name, value in document["payload"].items()
    }
    return payload, document["parameters"]
