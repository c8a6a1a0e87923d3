"""Kernel tests run in Triton's interpreter (tests/conftest.py), and memory that nobody wrote reads as NaN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def unwritten_memory_reads_as_nan() -> Iterator[None]:
    """Let torch fill what `empty` returns: with deterministic algorithms it writes NaN, and the largest integers."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)
