"""What this machine can do, one check a line: Python, devices, packages, plug-ins, models, programs, room.

Nothing here raises: a missing package or a plug-in that can't be asked is a line with its fix.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tercet import registry
from tercet.compat import cuda_extensions
from tercet.errors import TercetError
from tercet.modality import Check, Modality
from tercet.models import list_models
from tercet.models.cache import cache_root

OLDEST_PYTHON = (3, 11)
GIB = 2**30
LEAST_GIB = {"run folder": 1.0, "model cache": 1.0}  # the carried models take 0.7 GiB, the demo's run less
LEAST_MEMORY_GIB = 4.0
TRAINING = ("torch", "transformers", "peft", "accelerate", "safetensors")
PROGRAMS = {  # program: what for, and how to get it
    "ffmpeg": ("lets `datasets` decode audio by itself", "apt install ffmpeg"),
    "espeak-ng": ("speech engine; the espeakng-loader wheel does as well", "apt install espeak-ng"),
    "flite": ("speech engine, for voices never trained on", "apt install flite"),
}


def check_machine(run_folder: Path) -> Iterator[Check]:
    """Check everything, cheap things first; `run_folder` is where runs would be written."""
    yield _check_python()
    yield _check_cores()
    yield from _check_torch()
    yield _check_training()
    yield _check_kernels()
    for modality in _modalities():
        yield from [modality] if isinstance(modality, Check) else _check_plug_in(modality)
    yield from _check_models()
    for name, (purpose, fix) in PROGRAMS.items():
        found = shutil.which(name)
        yield Check(f"program {name}", bool(found), found or f"absent: {purpose}", "" if found else fix, required=False)
    yield _check_room("run folder", run_folder, "free space, or run elsewhere with --out")
    yield _check_room("model cache", cache_root(), "free space, or name another folder: export TERCET_CACHE=...")


def _check_python() -> Check:
    is_new = sys.version_info >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", is_new, platform.python_version(), "" if is_new else f"install Python {oldest} or newer")


def _check_cores() -> Check:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    detail = f"{os.cpu_count()} cores, {memory:.1f} GiB"
    is_enough = memory >= LEAST_MEMORY_GIB
    fix = "" if is_enough else f"training wants {LEAST_MEMORY_GIB:g} GiB; make data with --workers 1"
    return Check("cores and memory", is_enough, detail, fix, required=False)


def _check_torch() -> Iterator[Check]:
    """Say what torch sees, and whether a torchaudio built for CUDA stands beside a CPU torch."""
    fix = "pip install 'tercet[all]'"
    if importlib.util.find_spec("torch") is None:
        yield Check("torch", False, "not installed: text and image by grammar and renderer work without", fix,
                    required=False)  # fmt: skip
        return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", False, f"can't be imported: {_one_line(error)}", "reinstall it: " + fix)
        return
    yield Check("torch", True, f"{torch.__version__}, {_devices(torch)}")
    yield _check_torchaudio(torch.version.cuda)


def _devices(torch: object) -> str:
    cuda = torch.cuda  # type: ignore[attr-defined]
    names = [cuda.get_device_name(index) for index in range(cuda.device_count())] if cuda.is_available() else []
    return ", ".join(names) if names else "CPU alone"


def _check_torchaudio(cuda_version: str | None) -> Check:
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None:
        return Check("torchaudio", False, "not installed: only Coqui TTS and SpecAugment need it",
                     "pip install 'tercet[coqui]'", required=False)  # fmt: skip
    if cuda_version is None and (broken := cuda_extensions(Path(found.origin).parent)):
        names = ", ".join(path.name for path in broken)
        return Check(
            "torchaudio", False, f"{names} built for CUDA beside a CPU torch: plain `import peft`, diffusers and TTS "
            "fail", "tercet doctor --fix", required=False,
        )  # fmt: skip
    return Check("torchaudio", True, "fits this torch")


def _check_training() -> Check:
    missing = [name for name in TRAINING if importlib.util.find_spec(name) is None]
    detail = "missing: " + ", ".join(missing) if missing else "installed"
    fix = "pip install 'tercet[train]'" if missing else ""
    return Check("training packages", not missing, detail, fix, required=False)


def _check_kernels() -> Check:
    if importlib.util.find_spec("tercet_kernels") is None:
        detail = "not installed: torch's own operators are used, with the same results"
        return Check("kernels", False, detail, "nothing to do: this version brings none", required=False)
    return Check("kernels", True, "installed")


def _modalities() -> list[Modality | Check]:
    try:
        return list(registry.modalities().values())
    except Exception as error:  # noqa: BLE001 - a broken plug-in is a line, whatever it raises
        fix = "reinstall or remove the package that brings it"
        return [Check("plug-ins", False, f"one can't be loaded: {_one_line(error)}", fix)]


def _check_plug_in(modality: Modality) -> Iterator[Check]:
    name = f"plug-in {modality.name}"
    if not modality.checks:
        yield Check(name, True, "has nothing to check")
        return
    try:
        yield from registry.load(modality.checks, modality.extra)(None)
    except TercetError as error:
        yield Check(name, False, _one_line(error), f"pip install 'tercet[{modality.extra}]'", required=False)
    except Exception as error:  # noqa: BLE001 - third-party code: it must not end the examination
        detail = f"can't be asked: {type(error).__name__}: {_one_line(error)}"
        yield Check(name, False, detail, "reinstall the package that brings it")


def _check_models() -> Iterator[Check]:
    for model in list_models():
        detail = "cached" if model.cached else f"not cached ({model.num_bytes / 1e6:.0f} MB, {model.kind})"
        fix = "" if model.cached else f"tercet models get {model.reference}"
        yield Check(f"model {model.reference}", model.cached, detail, fix, required=False)


def _check_room(name: str, folder: Path, fix: str) -> Check:
    """Look at the nearest folder that exists: a run or cache that isn't there yet will be made in it."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / GIB
    if not os.access(there, os.W_OK):
        return Check(name, False, f"{there} can't be written", "fix its permissions: chmod u+w, or choose another")
    return Check(
        name, free >= LEAST_GIB[name], f"{free:.1f} GiB free at {there}", "" if free >= LEAST_GIB[name] else fix
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
