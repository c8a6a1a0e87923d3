"""Tests of kernels on a device: a GPU, or the CPU standing in for one under ttsem, which checks bounds and races.

They need a process of their own, where Triton compiles instead of interpreting:

    PYTHONPATH=.venv/ttsem python -m ttsem.sanitize pytest tests/kernels/device    (no GPU)
    python -m pytest tests/kernels/device                                          (a GPU)

Among other tests, and where neither is there, they are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Let Triton compile where this folder alone is asked for: the kernels aren't imported yet."""
    paths = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    if all(path.is_relative_to(HERE) for path in paths):
        os.environ["TRITON_INTERPRET"] = "0"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Give the device that kernels run on, or skip."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("device tests need a process of their own: pytest tests/kernels/device")
    if not torch.cuda.is_available():
        pytest.skip("neither a GPU nor ttsem is there")
    return torch.device("cuda")
