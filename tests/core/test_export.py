from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from tests.core.toy import flac, note_record, notes, png, toy, toy_record

from tercet.errors import CorruptError, StoreError, UsageError
from tercet.export import FORMATS, export, formats
from tercet.records import Record
from tercet.store.manifest import write_manifest
from tercet.store.shards import write_shard

TOYS = [toy_record(number) for number in range(7)]


def make_run(run_dir: Path, recipe: str = "r" * 32) -> Path:
    """Make a finished run: seven toys in two spans and two splits, one rejected toy, two notes."""
    shards = []
    for first, split, records in ((0, "train", TOYS[:3]), (4096, "train", TOYS[3:5]), (0, "test", TOYS[5:])):
        shards.append(write_shard(run_dir / "shards/toy" / split, first, toy, "toy", records))
    both = [note_record("a dialog", 1), note_record("line\nline", 2)]
    shards.append(write_shard(run_dir / "shards/note/train", 0, notes, "note", both))
    rejected = write_shard(run_dir / "rejects/toy", 0, toy, "toy", [toy_record(99)])
    shards.append(type(rejected)("rejects/toy/000000000000.parquet", rejected.digest, 1, rejected.bytes))
    write_manifest(run_dir, recipe, shards)
    (run_dir / "README.md").write_text("# card\n")
    return run_dir


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_parquet_keeps_the_runs_paths_so_that_its_card_fits(run_dir: Path, tmp_path: Path) -> None:
    written = export(run_dir, tmp_path / "out", ["parquet"])
    root = tmp_path / "out" / "parquet"
    assert sorted(path.relative_to(root).as_posix() for path in written) == [
        "shards/note/train/000000000000.parquet",
        "shards/toy/test/000000000000.parquet",
        "shards/toy/train/000000000000.parquet",
        "shards/toy/train/000000004096.parquet",
    ]
    assert (root / "README.md").read_text() == "# card\n"
    assert sum(pq.read_metadata(path).num_rows for path in written) == 9


def test_parquet_is_copied_where_links_are_impossible(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    for path in export(run_dir, tmp_path / "out", ["parquet"]):
        assert path.read_bytes() == (run_dir / path.relative_to(tmp_path / "out" / "parquet")).read_bytes()


def test_jsonl_rows_name_the_files_beside_them(run_dir: Path, tmp_path: Path) -> None:
    written = export(run_dir, tmp_path / "out", ["jsonl"])
    root = tmp_path / "out" / "jsonl"
    assert [path.relative_to(root).as_posix() for path in written] == [
        "note/train.jsonl", "toy/test.jsonl", "toy/train.jsonl",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (root / "toy/train.jsonl").read_text().split("\n")[:-1]]
    assert [row["id"] for row in rows] == [record.id for record in TOYS[:5]]
    for at, row in enumerate(rows):
        assert (root / "toy" / row["audio"]).read_bytes() == flac(1600 + at)
        assert (root / "toy" / row["image"]).read_bytes() == png(at)
        assert row["tags"] == [{"name": "ibuprofen", "weight": at / 3}]
        assert row["lineage"] == TOYS[at].lineage
        assert row["verdicts"][0] == {
            "gate": "duration", "passed": True, "score": 0.1, "threshold": 0.05, "reason": "", "label": "",
        }  # fmt: skip


# webdataset leaves the tar that it read to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_every_sample_back(run_dir: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    written = export(run_dir, tmp_path / "out", ["webdataset"], ["train"])
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "webdataset/note/train/00000.tar", "webdataset/toy/train/00000.tar",
    ]  # fmt: skip
    samples = list(webdataset.WebDataset(str(written[1]), shardshuffle=False, empty_check=False))
    assert len(samples) == 5
    for at, sample in enumerate(samples):
        assert sample["__key__"] == f"{at:09d}_{TOYS[at].id}"
        assert "." not in sample["__key__"]
        frames, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert (len(frames), rate) == (1600 + at, 16000)
        assert Image.open(io.BytesIO(sample["png"])).getpixel((0, 0)) == (at, 0, 255 - at)
        assert sample["txt"].decode() == TOYS[at].payload["text"]
        held = json.loads(sample["json"])
        assert (held["id"], held["lineage"]) == (TOYS[at].id, TOYS[at].lineage)
    dialogs = list(webdataset.WebDataset(str(written[0]), shardshuffle=False, empty_check=False))
    assert [json.loads(sample["json"])["text"] for sample in dialogs] == ["a dialog", "line\nline"]
    assert all("txt" not in sample for sample in dialogs)


def test_tars_hold_sorted_members_without_clock_or_owner(run_dir: Path, tmp_path: Path) -> None:
    for path in export(run_dir, tmp_path / "out", ["webdataset"]):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert names_in(path) == sorted(names_in(path))
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


def test_tars_are_cut_by_count_with_whole_samples(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "TAR_SAMPLES", 2)
    written = [path for path in export(run_dir, tmp_path / "out", ["webdataset"]) if "toy/train" in path.as_posix()]
    assert [path.name for path in written] == ["00000.tar", "00001.tar", "00002.tar"]
    assert [len(names_in(path)) for path in written] == [8, 8, 4]


def test_exporting_again_gives_the_same_bytes_and_drops_what_is_gone(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run_dir, out, FORMATS)
    first = contents(out)
    (out / "jsonl" / "stale.txt").write_text("from before")
    (out / ".jsonl.1.tmp").mkdir()  # left by a killed export
    export(run_dir, out, FORMATS)
    assert contents(out) == first
    assert sorted(path.name for path in out.iterdir()) == ["jsonl", "parquet", "tercet-export.json", "webdataset"]


def test_the_same_run_elsewhere_exports_the_same_bytes(run_dir: Path, tmp_path: Path) -> None:
    export(run_dir, tmp_path / "a", FORMATS)
    export(make_run(tmp_path / "other"), tmp_path / "b", FORMATS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_folder_with_something_else_is_left_alone(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty, and no former export of .*run; empty it or export to another"):
        export(run_dir, out, ["jsonl"])
    assert contents(out) == {"thesis.tex": b"mine"}


def test_another_runs_export_is_left_alone(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run_dir, out, ["jsonl"])
    before = contents(out)
    with pytest.raises(UsageError, match="holds an export of another run"):
        export(make_run(tmp_path / "second", "s" * 32), out, ["jsonl"])
    assert contents(out) == before


def test_an_export_that_fails_leaves_the_former_one(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(run_dir, out, ["jsonl"])
    before = contents(out)

    def fail(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        export(run_dir, out, ["jsonl"])
    monkeypatch.undo()
    assert contents(out) == before


def test_a_flipped_byte_in_a_shard_stops_the_export_before_it_writes(run_dir: Path, tmp_path: Path) -> None:
    path = run_dir / "shards/toy/test/000000000000.parquet"
    whole = bytearray(path.read_bytes())
    whole[200] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CorruptError, match=f"{path} is damaged: its digest is .*, it was written as"):
        export(run_dir, tmp_path / "out", ["jsonl"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("chosen", "splits", "message"),
    [
        (["csv"], None, "no export format 'csv'; choose from parquet, jsonl, webdataset"),
        (["jsonl"], ["dev"], "no split 'dev' in this run; it has test, train"),
    ],
    ids=["format", "split"],
)
def test_an_unknown_name_lists_the_known_ones(
    run_dir: Path, tmp_path: Path, chosen: list[str], splits: list[str] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(run_dir, tmp_path / "out", chosen, splits)


def test_exporting_imports_no_torch(run_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, tercet.export as e; a, b = map(pathlib.Path, sys.argv[1:]);"
        "e.export(a, b, e.FORMATS); assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, run_dir, tmp_path / "out"], check=True)


def test_rejected_records_are_not_exported(run_dir: Path, tmp_path: Path) -> None:
    export(run_dir, tmp_path / "out", FORMATS)
    rejected: Record = toy_record(99)
    assert not [path for path in (tmp_path / "out").rglob("*") if rejected.id in path.name]
    assert rejected.id.encode() not in b"".join(contents(tmp_path / "out" / "jsonl").values())
