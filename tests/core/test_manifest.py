from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.core.toy import note_record, notes

from tercet.errors import CorruptError, StoreError
from tercet.store.manifest import read_manifest, verify, write_manifest
from tercet.store.shards import ShardInfo, write_shard


@pytest.fixture
def shards(tmp_path: Path) -> list[ShardInfo]:
    (tmp_path / "report.html").write_text("<p>report")
    folder = tmp_path / "shards" / "note" / "train"
    return [write_shard(folder, first, notes, "note", [note_record("x", first)]) for first in (4096, 0)]


def test_a_manifest_lists_every_file_in_the_order_of_their_paths(tmp_path: Path, shards: list[ShardInfo]) -> None:
    written = write_manifest(tmp_path, "r" * 32, shards, ["report.html"])
    assert read_manifest(tmp_path) == written
    assert [entry.path for entry in written.shards] == [
        "shards/note/train/000000000000.parquet",
        "shards/note/train/000000004096.parquet",
    ]
    assert [(entry.path, entry.rows, entry.bytes) for entry in written.artefacts] == [("report.html", None, 9)]
    assert verify(tmp_path) == []


def test_the_same_run_gives_the_same_manifest(tmp_path: Path, shards: list[ShardInfo]) -> None:
    write_manifest(tmp_path, "r", shards)
    first = (tmp_path / "manifest.json").read_bytes()
    write_manifest(tmp_path, "r", list(reversed(shards)))
    assert (tmp_path / "manifest.json").read_bytes() == first


def test_every_damaged_and_missing_file_is_named_by_its_digest(tmp_path: Path, shards: list[ShardInfo]) -> None:
    write_manifest(tmp_path, "r", shards, ["report.html"])
    damaged = tmp_path / shards[0].path
    damaged.write_bytes(damaged.read_bytes() + b"x")
    (tmp_path / "report.html").unlink()
    said = [str(damage) for damage in verify(tmp_path)]
    assert len(said) == 2
    assert said[0].startswith(f"{shards[0].path}: has digest ")
    assert said[0].endswith(f"; the manifest says {shards[0].digest}")
    assert said[1].startswith("report.html: is missing; the manifest says ")


def test_an_unfinished_run_has_no_manifest_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no manifest.json here; finish the run first: tercet run"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"version": 1}', '{"version": 1, "recipe": "r", "shards": [3]}'])
def test_a_file_that_is_no_manifest_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorruptError, match=r"manifest.json: not .*tercet run"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_newer_tercet_says_update(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(StoreError, match="manifest version 2 is newer than ours; update tercet"):
        read_manifest(tmp_path)


def test_a_missing_artefact_is_said(tmp_path: Path, shards: list[ShardInfo]) -> None:
    with pytest.raises(StoreError, match=r"gone.html: can't be read: No such file"):
        write_manifest(tmp_path, "r", shards, ["gone.html"])
