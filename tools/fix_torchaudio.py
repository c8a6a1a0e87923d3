"""Make torchaudio importable beside a CPU build of torch; `tercet doctor --fix` does the same.

The torchaudio wheel on PyPI links against CUDA. Beside a CPU torch its extension can't load, `import torchaudio`
raises OSError, and with it peft, diffusers, transformers' audio helpers and TTS. Without the extension torchaudio
works in Python alone, so the extension is removed from this environment, and only where torch has no CUDA.
"""

from __future__ import annotations

from tercet.compat import mend_torchaudio


def main() -> None:
    """Mend this environment."""
    print(mend_torchaudio())


if __name__ == "__main__":
    main()
