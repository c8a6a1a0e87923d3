"""Live with a torchaudio whose compiled extension was built for CUDA beside a torch that was not.

torchaudio 2.11 publishes one x86-64 wheel, and it needs libcudart and libtorch_cuda. Beside a CPU torch importing it
raises OSError, and with it `import peft`, diffusers pipelines, TTS and transformers' audio code. Its Python half works
without the extension, so the extension's loader is replaced by one that reports it absent.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

EXTENSION = "torchaudio._extension"


@functools.cache
def prepare_torchaudio() -> bool:
    """Make `import torchaudio` work here; call it before peft, transformers, diffusers or TTS are imported.

    Returns whether the stand-in was needed. Does nothing when torchaudio is absent, already imported, or loads.
    """
    if EXTENSION in sys.modules or (spec := importlib.util.find_spec("torchaudio")) is None:
        return False
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    libraries = sorted(library for folder in folders for library in (folder / "lib").glob("*.so"))
    if not libraries or _loads(libraries):
        return False
    sys.modules[EXTENSION] = _absent_extension()
    return True


@functools.cache
def find_torchaudio() -> Any | None:
    """Return `torchaudio.functional`, or None where torchaudio is absent or belongs to another torch."""
    prepare_torchaudio()
    try:
        from torchaudio import functional
    except (ImportError, OSError, RuntimeError):
        return None
    return functional


def _loads(libraries: list[Path]) -> bool:
    """Try to load the libraries as torchaudio would: after torch, whose symbols they use."""
    import torch  # noqa: F401 - brings libtorch into the process

    try:
        for library in libraries:
            ctypes.CDLL(str(library))
    except OSError:
        return False
    return True


def _absent_extension() -> ModuleType:
    """Build what `torchaudio._extension` is when no extension was built: its flags and its decorator."""

    def refuse(function: Any) -> Any:
        @functools.wraps(function)
        def absent(*_: Any, **__: Any) -> Any:
            raise RuntimeError(f"torchaudio.{function.__name__} needs an extension that this CPU torch can't load")

        return absent

    module: Any = ModuleType(EXTENSION)
    module.__doc__ = "Stand-in for an extension that this machine can't load."
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False
    module._IS_ALIGN_AVAILABLE = False
    module._check_cuda_version = lambda: None
    module.fail_if_no_align = refuse
    return module  # type: ignore[no-any-return]


def mend_torchaudio() -> str:
    """Remove from this environment the CUDA extension of a torchaudio beside a CPU torch; say what was done."""
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None:
        return "torchaudio is not installed: nothing to mend"
    import torch

    return remove_cuda_extension(Path(found.origin).parent, torch.version.cuda)


def remove_cuda_extension(torchaudio_folder: Path, cuda_version: str | None) -> str:
    """Remove the CUDA extension where torch has no CUDA; say what was done. Running it twice changes nothing."""
    if cuda_version is not None:
        return f"torchaudio left as it is: torch is a CUDA {cuda_version} build"
    extensions = cuda_extensions(torchaudio_folder)
    if not extensions:
        return "torchaudio left as it is: its CUDA extension is already gone"
    for extension in extensions:
        extension.unlink()
    return f"torchaudio mended for CPU torch: removed {', '.join(extension.name for extension in extensions)}"


def cuda_extensions(torchaudio_folder: Path) -> list[Path]:
    """List the compiled parts of a torchaudio package."""
    return sorted((torchaudio_folder / "lib").glob("*.so"))
