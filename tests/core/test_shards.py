from __future__ import annotations

import errno
import io
import json
import os
import random
import string
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.core.toy import flac, note_record, notes, toy, toy_record

from tercet.errors import CorruptError, StoreError
from tercet.modality import PayloadType
from tercet.records import Record, Verdict
from tercet.store import shards
from tercet.store.durable import file_digest
from tercet.store.schema import MEDIA, shard_schema
from tercet.store.shards import read_records, read_shard, write_shard, write_shards


def folder_in(run_dir: Path, modality: str = "toy", split: str = "train") -> Path:
    return run_dir / "shards" / modality / split


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    info = write_shard(folder_in(tmp_path), 0, toy, "toy", [toy_record(number) for number in range(5)])
    return tmp_path / info.path


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [toy_record(number) for number in range(150)]
    info = write_shard(folder_in(tmp_path), 400, toy, "toy", iter(records))
    path = tmp_path / "shards/toy/train/000000000400.parquet"
    assert info.path == path.relative_to(tmp_path).as_posix()
    assert (info.rows, info.bytes, info.digest) == (150, path.stat().st_size, file_digest(path))
    assert list(read_shard(path, info.digest)) == records
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_same_records_give_the_same_file(tmp_path: Path) -> None:
    records = [toy_record(number) for number in range(20)]
    first = write_shard(folder_in(tmp_path / "a"), 0, toy, "toy", records)
    second = write_shard(folder_in(tmp_path / "b"), 0, toy, "toy", iter(records))
    assert first == second


def test_a_shard_may_hold_no_records(tmp_path: Path) -> None:
    info = write_shard(folder_in(tmp_path), 7, toy, "toy", [])
    assert info.rows == 0
    assert list(read_shard(tmp_path / info.path)) == []


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", "\0", "\r\n", "\u202e", "𝕏"]
)
numbers = st.integers(-(2**63), 2**63 - 1)
payloads = st.fixed_dictionaries(
    {
        "audio": st.binary(max_size=40),
        "image": st.binary(max_size=40),
        "text": texts,
        "tags": st.lists(
            st.fixed_dictionaries({"name": texts, "weight": st.none() | st.floats(allow_nan=False)}), max_size=3
        ),
        "count": st.none() | numbers,
    }
)
scores = st.none() | st.floats(allow_nan=False)
verdict_lists = st.lists(st.builds(Verdict, texts, st.booleans(), scores, scores, texts, texts), max_size=3).map(tuple)
json_values = st.recursive(st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=2))
keys = st.text(string.hexdigits, min_size=1, max_size=8)
odd_records = st.builds(
    Record, keys, keys, st.just("toy"), texts, payloads, st.dictionaries(texts, json_values, max_size=3), verdict_lists
)


@settings(max_examples=40, deadline=None)
@given(st.lists(odd_records, max_size=4))
def test_any_record_that_fits_the_schema_survives_the_round_trip(records: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        info = write_shard(folder_in(Path(folder)), 0, toy, "toy", records)
        assert list(read_shard(Path(folder) / info.path, info.digest)) == records


def test_the_schema_is_the_documented_one(shard: Path) -> None:
    schema = pq.read_schema(shard)
    assert schema.names == [
        "id", "item_key", "split", "audio", "image", "text", "tags", "count", "lineage", "verdicts",
    ]  # fmt: skip
    assert schema.field("audio").type == MEDIA
    assert str(schema.field("verdicts").type).startswith("list<element: struct<gate: string, passed: bool, score: doub")
    ours = json.loads(schema.metadata[b"tercet"])
    assert ours == {"version": 1, "modality": "toy", "payload_version": 1, "media": {"audio": "flac", "image": "png"}}
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"_type": "Audio", "sampling_rate": 16000}
    assert list(features) == schema.names


def test_pyarrow_alone_reads_a_shard(shard: Path) -> None:
    rows = pq.read_table(shard).to_pylist()
    assert rows[0]["audio"] == {"bytes": flac(1600), "path": f"{rows[0]['id']}.flac"}
    assert json.loads(rows[-1]["lineage"])["seed"] == 2**62 + 4
    assert [verdict["gate"] for verdict in rows[-1]["verdicts"]] == ["duration", "judge"]


def test_datasets_loads_a_shard_with_its_features_and_decodes_the_first_and_last_row(
    shard: Path, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("parquet", data_files=str(shard), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded.features["audio"] == datasets.Audio(sampling_rate=16000)
    assert loaded.features["image"] == datasets.Image()
    assert [len(loaded), loaded.features["lineage"].dtype] == [5, "string"]
    bare = loaded.cast_column("audio", datasets.Audio(decode=False))
    for at in (0, 4):
        samples, rate = soundfile.read(io.BytesIO(bare[at]["audio"]["bytes"]))
        assert (len(samples), rate) == (1600 + at, 16000)
        picture = bare[at]["image"]
        assert isinstance(picture, Image.Image)
        assert picture.getpixel((0, 0)) == (at, 0, 255 - at)


def test_a_flipped_byte_in_a_page_is_found_without_a_digest_at_hand(shard: Path) -> None:
    whole = shard.read_bytes()
    expected = list(read_shard(shard))
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # the footer has no checksum of its own
    unnoticed, said = 0, set()
    for at in range(0, footer, 97):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            found = list(read_shard(shard))
        except CorruptError as error:
            said.add(str(error).split(" can't be read")[0].replace(file_digest(shard), "..."))
        else:
            assert found == expected
            unnoticed += 1  # a field of a page's header that a reader skips
    assert said == {f"shard {shard} (digest ...)"}
    assert unnoticed < footer / 97 * 0.05


def test_a_flipped_byte_is_named_by_the_digest_it_should_have(shard: Path) -> None:
    digest = file_digest(shard)
    whole = bytearray(shard.read_bytes())
    whole[len(whole) // 2] ^= 1
    shard.write_bytes(whole)
    with pytest.raises(CorruptError, match=f"its digest is {file_digest(shard)}, it was written as {digest}"):
        next(read_shard(shard, digest))


@pytest.mark.parametrize("kept", [0, 4, 1000, -1], ids=["empty", "magic only", "half", "all but one byte"])
def test_a_torn_shard_is_named_with_the_way_out(shard: Path, kept: int) -> None:
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(CorruptError, match=f"{file_digest(shard)}.*restore it from a copy.*tercet run --fresh"):
        list(read_shard(shard))


def test_a_missing_shard_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone.parquet: can't be read: No such file"):
        list(read_shard(tmp_path / "gone.parquet"))


def test_a_parquet_file_that_is_no_shard_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(CorruptError, match="no shard of tercet's"):
        list(read_shard(tmp_path / "other.parquet"))


def test_a_shard_of_a_newer_tercet_says_update(tmp_path: Path) -> None:
    schema = shard_schema(notes, "note").with_metadata({"tercet": json.dumps({"version": 2})})
    pq.write_table(schema.empty_table(), tmp_path / "new.parquet")
    with pytest.raises(StoreError, match="shard version 2 is newer than 1; update tercet"):
        list(read_shard(tmp_path / "new.parquet"))


@pytest.mark.parametrize("payload", [{"text": 3}, {"text": "\ud800"}, {"text": "a", "more": 1}, {}], ids=repr)
def test_a_payload_that_does_not_fit_names_its_record_and_leaves_nothing(tmp_path: Path, payload: object) -> None:
    bad = Record("bad-one", "k", "note", "train", payload, {})  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"record bad-one.*schema"):
        write_shard(folder_in(tmp_path), 0, notes, "note", [note_record("fine"), bad])
    assert list(folder_in(tmp_path).iterdir()) == []


def test_a_full_disk_while_writing_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder_in(tmp_path).mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"000000000000.parquet: can't be written: No space left on device; free space"
    ):
        write_shard(folder_in(tmp_path), 0, notes, "note", [note_record("x")])
    assert list(folder_in(tmp_path).iterdir()) == []


def test_a_disk_that_fills_up_inside_the_parquet_writer_is_said_too(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    folder_in(tmp_path).mkdir(parents=True)
    temporary = f".000000000000.parquet.{os.getpid()}-{threading.get_ident()}.tmp"
    (folder_in(tmp_path) / temporary).symlink_to("/dev/full")
    records = [toy_record(number) for number in range(200)]
    with pytest.raises(StoreError, match="No space left on device; free space"):
        write_shard(folder_in(tmp_path), 0, toy, "toy", records)
    assert list(folder_in(tmp_path).iterdir()) == []


def test_row_groups_and_files_are_cut_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 40_000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    noise = random.Random(0)
    records = [
        replace(record, payload={**record.payload, "audio": noise.randbytes(3000)})
        for record in map(toy_record, range(100))
    ]
    written = write_shards(folder_in(tmp_path), 0, toy, "toy", records)
    assert [Path(info.path).name for info in written[:2]] == ["000000000000.parquet", "000000000000-0001.parquet"]
    assert sum(info.rows for info in written) == 100
    assert len(written) > 2
    for info in written:
        held = pq.ParquetFile(tmp_path / info.path).metadata
        groups = [held.row_group(at).total_byte_size for at in range(held.num_row_groups)]
        assert len(groups) > 1 or info is written[-1]
        assert max(groups) <= 44_000  # 10 % for levels, page headers and lengths
        assert info.bytes <= 110_000
    assert list(read_records(tmp_path, "toy")) == records


def test_no_records_give_no_files(tmp_path: Path) -> None:
    assert write_shards(folder_in(tmp_path), 0, toy, "toy", []) == []


def test_a_run_reads_in_plan_order_by_split_or_whole(tmp_path: Path) -> None:
    for first in (2000, 0, 10_000):
        for split in ("train", "held_out"):
            record = note_record(f"{split} {first}", first, split)
            write_shard(folder_in(tmp_path, "note", split), first, notes, "note", [record])
    (folder_in(tmp_path, "note", "train") / ".000000000000.parquet.1-1.tmp").write_bytes(b"left by a kill")
    train = [str(record.payload["text"]) for record in read_records(tmp_path, "note", "train")]
    assert train == ["train 0", "train 2000", "train 10000"]
    whole = [str(record.payload["text"]) for record in read_records(tmp_path, "note")]
    assert whole[:3] == ["held_out 0", "train 0", "held_out 2000"]
    assert list(read_records(tmp_path, "absent")) == []


def test_a_payload_column_with_our_name_is_refused() -> None:
    clash = PayloadType(1, pa.schema([("id", pa.string())]), {}, str)
    with pytest.raises(ValueError, match="payload column 'id' has a name that every record uses"):
        shard_schema(clash)


def test_a_media_column_of_another_type_is_refused() -> None:
    plain = PayloadType(1, pa.schema([("audio", pa.binary())]), {}, str, {"audio": "flac"})
    with pytest.raises(ValueError, match="media column 'audio' must be a payload column of type struct<bytes"):
        shard_schema(plain)
