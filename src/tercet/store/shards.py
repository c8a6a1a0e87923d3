"""Accepted records as Parquet: written as a stream, whole or not at all, and the same records give the same bytes.

A file is `shards/<modality>/<split>/<first item, 12 digits>.parquet`; pages carry checksums, so a flipped bit is found
when it's read even where no digest is at hand.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tercet.errors import CorruptError, StoreError
from tercet.modality import PayloadType
from tercet.randomness import canonical_json
from tercet.records import Record, Verdict
from tercet.store.durable import durable_file, file_digest, make_folder
from tercet.store.schema import OWN, ShardType, read_shard_type, shard_schema

ROW_GROUP_BYTES = 64 * 2**20
SHARD_BYTES = 512 * 2**20
BATCH_BYTES = 4 * 2**20  # of media; records are turned into Arrow in steps of this size, to bound the memory
BATCH_ROWS = 1024
READ_ROWS = 64

# zstd at a fixed level; no dictionaries or statistics, which cost time and serve nobody on bytes and digests
WRITER_OPTIONS = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One written shard; `path` is relative to the run directory, `digest` that of the file's bytes."""

    path: str
    digest: str
    rows: int
    bytes: int


def write_shard(
    folder: Path, first_item: int, payload_type: PayloadType, modality: str, records: Iterable[Record]
) -> ShardInfo:
    """Write all `records` as one durable shard; `folder` is `<run>/shards/<modality>/<split>`.

    Raises:
        StoreError: a record doesn't fit the schema, the disk is full or the folder can't be written; nothing changed.
    """
    batches = _Batches(shard_schema(payload_type, modality), payload_type, records)
    return _write_file(folder, f"{first_item:012d}.parquet", batches.schema, batches)


def write_shards(
    folder: Path, first_item: int, payload_type: PayloadType, modality: str, records: Iterable[Record]
) -> list[ShardInfo]:
    """Write `records` as shards of at most 512 MiB: `<first>.parquet`, then `<first>-0001.parquet` and so on.

    No records give no file. Commit the whole list to the journal in one transaction.
    """
    batches = _Batches(shard_schema(payload_type, modality), payload_type, records)
    written: list[ShardInfo] = []
    remaining = _Pushback(iter(batches))
    while not remaining.is_empty:
        name = f"{first_item:012d}-{len(written):04d}.parquet" if written else f"{first_item:012d}.parquet"
        written.append(_write_file(folder, name, batches.schema, _until(remaining, SHARD_BYTES)))
    return written


def read_shard(path: Path, digest: str | None = None) -> Iterator[Record]:
    """Yield a shard's records in the order they were written; media columns come back as bytes.

    A key that a payload's struct lacked comes back as None. With `digest`, the whole file is checked first.

    Raises:
        CorruptError: the file is torn or damaged; names it and its digest.
        StoreError: the file is missing or comes from a newer tercet.
    """
    if digest is not None:
        check_digest(path, digest)
    with _named_faults(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        kind = read_shard_type(file.schema_arrow, str(path))
        for batch in file.iter_batches(batch_size=READ_ROWS):
            for row in batch.to_pylist():
                yield _record(row, kind)


def shard_type(path: Path) -> ShardType:
    """Read a shard's modality, version and media columns; raises as `read_shard` does."""
    with _named_faults(path):
        return read_shard_type(pq.read_schema(path), str(path))


@contextlib.contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        found = file_digest(path)  # names a file that is missing or unreadable as such
        raise CorruptError(f"shard {path} (digest {found}) can't be read: {error}; {_ADVICE}") from error


def check_digest(path: Path, digest: str) -> None:
    """Compare a file's bytes with the digest that the journal or manifest has for it.

    Raises:
        CorruptError: they differ.
        StoreError: the file is missing or can't be read.
    """
    found = file_digest(path)
    if found != digest:
        raise CorruptError(f"shard {path} is damaged: its digest is {found}, it was written as {digest}; {_ADVICE}")


def shard_paths(run_dir: Path, modality: str, split: str | None = None) -> list[Path]:
    """List a modality's shards in plan order; shards of the same items stand in the order of their splits."""
    folder = run_dir / "shards" / modality
    found = folder.glob(f"{split or '*'}/*.parquet")
    visible = (path for path in found if not path.name.startswith("."))
    return sorted(visible, key=lambda path: (path.name[:12], path.parent.name, path.stem))


def read_records(run_dir: Path, modality: str, split: str | None = None) -> Iterator[Record]:
    """Yield a run's records of one modality in plan order, from one split or all."""
    for path in shard_paths(run_dir, modality, split):
        yield from read_shard(path)


_ADVICE = "restore it from a copy, or make the data again: tercet run --fresh"


class _Batches:
    """Records as Arrow batches, cut by count and by the bytes of their media."""

    def __init__(self, schema: pa.Schema, payload_type: PayloadType, records: Iterable[Record]) -> None:
        self.schema = schema
        self._payload_type = payload_type
        self._records = records

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, Any]] = []
        size = 0
        for record in self._records:
            rows.append(self._row(record))
            size += sum(len(value) for value in record.payload.values() if isinstance(value, bytes))
            if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield self._batch(rows)
                rows, size = [], 0
        if rows:
            yield self._batch(rows)

    def _row(self, record: Record) -> dict[str, Any]:
        names = self._payload_type.columns.names
        if set(record.payload) != set(names):
            raise StoreError(
                f"record {record.id}: payload has columns {sorted(record.payload)}; its schema has {sorted(names)}"
            )
        row = dict(record.payload)
        for name, suffix in self._payload_type.media.items():
            row[name] = {"bytes": row[name], "path": f"{record.id}.{suffix}"}
        own = {"id": record.id, "item_key": record.item_key, "split": record.split}
        verdicts = [{name: getattr(verdict, name) for name in Verdict.__slots__} for verdict in record.verdicts]
        return {**own, **row, "lineage": canonical_json(record.lineage), "verdicts": verdicts}

    def _batch(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        try:
            return pa.RecordBatch.from_pylist(rows, schema=self.schema)
        except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError) as error:
            raise StoreError(f"{self._name_misfit(rows)} doesn't fit the shard's schema: {error}") from error

    def _name_misfit(self, rows: Sequence[dict[str, Any]]) -> str:
        for row in rows:
            try:
                pa.RecordBatch.from_pylist([row], schema=self.schema)
            except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
                return f"record {row['id']}"
        return f"one of {len(rows)} records"


class _Pushback:
    """An iterator of batches that knows whether it has ended."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._next = next(batches, None)

    @property
    def is_empty(self) -> bool:
        return self._next is None

    @property
    def next_bytes(self) -> int:
        return int(self._next.nbytes) if self._next is not None else 0

    def take(self) -> pa.RecordBatch:
        taken, self._next = self._next, next(self._batches, None)
        return taken


def _until(batches: _Pushback, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Take batches while their sum stays within `most_bytes`; at least one."""
    size = 0
    while not batches.is_empty and (size == 0 or size + batches.next_bytes <= most_bytes):
        size += batches.next_bytes
        yield batches.take()


def _write_file(folder: Path, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> ShardInfo:
    make_folder(folder)
    path = folder / name
    rows = 0
    with durable_file(path) as file:
        with pq.ParquetWriter(file, schema, **WRITER_OPTIONS) as writer:
            for table in _row_groups(batches, schema):
                writer.write_table(table, row_group_size=max(1, table.num_rows))
                rows += table.num_rows
        size = file.tell()
    relative = "/".join((*folder.parts[-3:], name))
    return ShardInfo(relative, file_digest(path), rows, size)


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Join batches into tables of at most 64 MiB; a single larger batch stays whole."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if waiting and size + batch.nbytes > ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting, schema)
            waiting, size = [], 0
        waiting.append(batch)
        size += batch.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _record(row: dict[str, Any], kind: ShardType) -> Record:
    payload = {name: value for name, value in row.items() if name not in OWN}
    for name in kind.media:
        payload[name] = payload[name]["bytes"]
    verdicts = tuple(Verdict(**verdict) for verdict in row["verdicts"])
    lineage = json.loads(row["lineage"])
    return Record(row["id"], row["item_key"], kind.modality, row["split"], payload, lineage, verdicts)
