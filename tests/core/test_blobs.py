from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tercet.errors import CorruptError, StoreError
from tercet.store.blobs import FolderBlobs
from tercet.store.durable import bytes_digest, durable_file, make_folder, remove_leftovers


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"\0", b"tercet" * 100_000], ids=["empty", "one byte", "600 kB"])
def test_a_blob_comes_back_as_it_was_put(tmp_path: Path, data: bytes) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    digest = blobs.put(data)
    assert digest == bytes_digest(data)
    assert blobs.has(digest)
    assert blobs.get(digest) == data
    assert files_below(tmp_path) == [tmp_path / "blobs" / digest[:2] / digest]


def test_putting_a_blob_twice_writes_it_once(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    path = tmp_path / (digest := blobs.put(b"once"))[:2] / digest
    before = path.stat().st_ino
    assert blobs.put(b"once") == digest
    assert path.stat().st_ino == before


def test_a_deleted_blob_is_gone_and_deleting_it_again_is_no_error(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"x")
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.has(digest)


def test_a_missing_blob_is_named_by_its_digest(tmp_path: Path) -> None:
    digest = bytes_digest(b"never put")
    with pytest.raises(CorruptError, match=f"blob {digest} is missing.*tercet run --fresh"):
        FolderBlobs(tmp_path).get(digest)


def test_a_flipped_byte_in_a_blob_is_named_by_its_digest_and_mended_by_the_next_put(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"payload")
    (tmp_path / digest[:2] / digest).write_bytes(b"paXload")
    with pytest.raises(CorruptError, match=f"blob {digest} is damaged.*tercet run --fresh"):
        blobs.get(digest)
    blobs.put(b"payload")
    assert blobs.get(digest) == b"payload"


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blobs = FolderBlobs(tmp_path)
    make_folder(tmp_path / bytes_digest(b"too much")[:2])
    monkeypatch.setattr(os, "fsync", full)
    blobs._durable_folders.add(tmp_path / bytes_digest(b"too much")[:2])
    with pytest.raises(StoreError, match="No space left on device; free space"):
        blobs.put(b"too much")
    assert files_below(tmp_path) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tercet.store.blobs import FolderBlobs
from tercet.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    FolderBlobs(Path(sys.argv[1])).put(bytes(5000))
except StoreError as error:
    print(error)
"""


def test_a_write_that_the_kernel_refuses_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert "File too large; free space or fix the permissions" in done.stdout
    assert files_below(tmp_path) == []


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so chmod would prove nothing in a container
    with pytest.raises(StoreError, match="Permission denied; free space or fix the permissions"):
        FolderBlobs(tmp_path / "blobs").put(b"x")


WRITER = """
import sys
from pathlib import Path
from tercet.store.blobs import FolderBlobs
blobs = FolderBlobs(Path(sys.argv[1]))
print(*(blobs.put(str(number % 50).encode() * 9000) for number in range(200)))
"""


def test_processes_that_put_the_same_blobs_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {writer.communicate()[0] for writer in writers}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    (digests,) = said
    blobs = FolderBlobs(tmp_path)
    assert all(blobs.get(digest) for digest in digests.split())
    assert len(files_below(tmp_path)) == 50


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with durable_file(path) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert files_below(tmp_path) == [path]


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "shards" / "toy" / "train"
    folder.mkdir(parents=True)
    (folder / ".000000000000.parquet.17-3.tmp").write_bytes(b"half")
    (tmp_path / ".manifest.json.17.tmp").write_bytes(b"half")
    (folder / "000000000000.parquet").write_bytes(b"whole")
    (tmp_path / ".my.tmp").mkdir()
    assert remove_leftovers(tmp_path) == 2
    assert files_below(tmp_path) == [folder / "000000000000.parquet"]


def fsynced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the path behind each descriptor that is fsynced from now on."""
    paths: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return paths


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the paths of descriptors are read from /proc")
def test_a_blob_that_another_process_has_just_renamed_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = FolderBlobs(tmp_path).put(b"theirs")
    paths = fsynced(monkeypatch)
    FolderBlobs(tmp_path).put(b"theirs")
    assert paths == [str(tmp_path), str(tmp_path / digest[:2])]
