"""A torchaudio whose extension can't load here is given a stand-in, and any other is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
from tercet.compat import EXTENSION, prepare_torchaudio
print(prepare_torchaudio(), EXTENSION in sys.modules, prepare_torchaudio())
import torchaudio
"""
IMPORTS_EXTENSION = "from . import _extension\nfrom torchaudio._extension import fail_if_no_align\n"
EXTENSION_CODE = "fail_if_no_align = print\n"


def probe(root: Path, environment_path: str = "") -> str:
    environment = {"PYTHONPATH": f"{root}:{environment_path}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False, env=environment, cwd=root
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def torchaudio(tmp_path: Path) -> Path:
    """A package of that name whose extension raises unless it is replaced."""
    package = tmp_path / "torchaudio"
    (package / "_extension").mkdir(parents=True)
    (package / "lib").mkdir()
    (package / "__init__.py").write_text(IMPORTS_EXTENSION)
    (package / "_extension" / "__init__.py").write_text(EXTENSION_CODE)
    return package


def test_an_extension_that_cannot_load_gets_a_stand_in(torchaudio: Path) -> None:
    (torchaudio / "lib" / "_torchaudio.so").write_bytes(b"\x7fELF not for this machine")
    (torchaudio / "_extension" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    assert probe(torchaudio.parent) == "True True True"


def test_a_torchaudio_without_compiled_parts_is_left_alone(torchaudio: Path) -> None:
    assert probe(torchaudio.parent) == "False False False"
