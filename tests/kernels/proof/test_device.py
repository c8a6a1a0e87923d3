"""Under ttsem every device test passes: bf16 as on a GPU, no access out of bounds, no race between programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.kernels.proof.processes import TTSEM, run_tests


@pytest.mark.timeout(900)
def test_every_device_test_passes_under_ttsem(tmp_path: Path) -> None:
    if not TTSEM.is_dir():
        message = f"ttsem isn't in {TTSEM}; run: make install"
        if os.environ.get("TERCET_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    outcome = run_tests(["tests/kernels/device"], tmp_path, under_ttsem=True)
    assert outcome.failed == [], outcome.output
    assert outcome.skipped == []
    assert outcome.passed
    assert "too large to be checked for races" not in outcome.output
