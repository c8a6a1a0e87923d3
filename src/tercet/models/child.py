"""Run a conversion in a process of its own, so that the driver stays free of torch and gets its memory back."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tercet.errors import MissingExtra, ModelError, TercetError

CONVERT_SECONDS = 1200
MODULES = {
    "whisper": "tercet.models.convert_whisper",
    "openai-whisper": "tercet.models.convert_openai_whisper",
    "gguf": "tercet.models.convert_gguf",
}
TORCH = ("torch", "transformers", "safetensors")
NEEDS = {"whisper": TORCH, "openai-whisper": (*TORCH, "whisper"), "gguf": (*TORCH, "gguf")}
EXTRA = {"whisper": "audio", "openai-whisper": "audio", "gguf": "text"}


def convert_in_child(converter: str, source: Path, target: Path) -> None:
    """Convert `source`, a file or the folder of its files, into a Hugging Face folder at `target`.

    Raises:
        MissingExtra: torch, transformers or gguf is not installed.
        ModelError: the source isn't what the converter reads, or it ran out of time or memory.
    """
    for needed in NEEDS[converter]:
        if importlib.util.find_spec(needed) is None:
            extra = EXTRA[converter]
            raise MissingExtra(f"converting a model needs {needed!r}; run: pip install 'tercet[{extra}]'")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", MODULES[converter], str(source), str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CONVERT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{converter} conversion: not done after {CONVERT_SECONDS} s; run again") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        killed = f"killed by signal {-done.returncode} (out of memory?): " if done.returncode < 0 else ""
        raise ModelError(f"{converter} conversion failed: {killed}{lines[-1][:400]}")


def run_child(convert: Callable[[Path, Path], None]) -> int:
    """Be the child: convert argv's source into its target folder; an error of ours is one line on stderr."""
    from tercet.compat import prepare_torchaudio

    prepare_torchaudio()
    source, target = (Path(argument) for argument in sys.argv[1:3])
    try:
        convert(source, target)
    except TercetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
