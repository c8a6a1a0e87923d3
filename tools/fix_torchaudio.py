"""Make torchaudio importable beside a CPU build of torch.

The torchaudio wheel on PyPI links against CUDA. Beside a CPU torch its extension can't load, `import torchaudio`
raises OSError, and with it peft, diffusers, transformers' audio helpers and TTS. Without the extension torchaudio
works in Python alone, so the extension is removed from this environment, and only where torch has no CUDA.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def fix(torchaudio_folder: Path, cuda_version: str | None) -> str:
    """Remove the CUDA extension where torch has no CUDA; say what was done. Running it twice changes nothing."""
    extensions = sorted((torchaudio_folder / "lib").glob("*.so"))
    if cuda_version is not None:
        return f"torchaudio left as it is: torch is a CUDA {cuda_version} build"
    if not extensions:
        return "torchaudio left as it is: its CUDA extension is already gone"
    for extension in extensions:
        extension.unlink()
    return f"torchaudio mended for CPU torch: removed {', '.join(extension.name for extension in extensions)}"


def main() -> int:
    """Mend this environment."""
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None:
        print("torchaudio is not installed: nothing to mend")
        return 0
    import torch

    print(fix(Path(found.origin).parent, torch.version.cuda))
    return 0


if __name__ == "__main__":
    sys.exit(main())
