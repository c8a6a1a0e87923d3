"""The Arrow schema of a shard: a record's own columns around its payload, and the metadata that other tools read.

The `huggingface` metadata gives `datasets` its Audio and Image columns; ours, `tercet`, names the modality, versions
and media columns with their file suffix, so that a shard explains itself without the plug-in that made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tercet.errors import CorruptError, StoreError
from tercet.modality import PayloadType

SHARD_VERSION = 1
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
VERDICT = pa.struct(
    [
        ("gate", pa.string()),
        ("passed", pa.bool_()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("reason", pa.string()),
        ("label", pa.string()),
    ]
)
BEFORE = (pa.field("id", pa.string()), pa.field("item_key", pa.string()), pa.field("split", pa.string()))
AFTER = (pa.field("lineage", pa.string()), pa.field("verdicts", pa.list_(VERDICT)))
OWN = tuple(field.name for field in (*BEFORE, *AFTER))
HF_DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}  # the others have Arrow's name


@dataclass(frozen=True, slots=True)
class ShardType:
    """What a shard's metadata says about its rows."""

    modality: str
    payload_version: int
    media: Mapping[str, str]  # column -> file suffix


def shard_schema(payload_type: PayloadType, modality: str = "") -> pa.Schema:
    """Give the one schema that a modality's shards have, with its metadata.

    Raises:
        ValueError: a payload column has a name of ours, or a media column isn't struct<bytes, path>.
    """
    columns = payload_type.columns
    for name in columns.names:
        if name in OWN:
            raise ValueError(f"payload column {name!r} has a name that every record uses; rename it")
    for name in payload_type.media:
        if name not in columns.names or columns.field(name).type != MEDIA:
            raise ValueError(f"media column {name!r} must be a payload column of type {MEDIA}")
    fields = [*BEFORE, *columns, *AFTER]
    features = {field.name: payload_type.features.get(field.name) or _feature(field.type) for field in fields}
    ours = {
        "version": SHARD_VERSION,
        "modality": modality,
        "payload_version": payload_type.version,
        "media": dict(payload_type.media),
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "tercet": json.dumps(ours)}
    return pa.schema(fields, metadata=metadata)


def read_shard_type(schema: pa.Schema, name: str) -> ShardType:
    """Read our own metadata; `name` is the file, for the message.

    Raises:
        CorruptError: the file isn't a shard of ours.
        StoreError: it comes from a newer tercet.
    """
    try:
        ours = json.loads(schema.metadata[b"tercet"])
        if ours["version"] > SHARD_VERSION:
            raise StoreError(f"{name}: shard version {ours['version']} is newer than {SHARD_VERSION}; update tercet")
        return ShardType(ours["modality"], ours["payload_version"], ours["media"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{name}: a Parquet file, but no shard of tercet's; remove it from shards/") from error


def _feature(kind: pa.DataType) -> Any:
    """Describe an Arrow type as a Hugging Face feature; a list is written in the form every version reads."""
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": HF_DTYPES.get(str(kind), str(kind)), "_type": "Value"}
