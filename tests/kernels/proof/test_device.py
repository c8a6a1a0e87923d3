"""Under ttsem every device test passes: bf16 as on a GPU, no access out of bounds, no race between programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernels.proof.processes import TTSEM, run_tests
from tests.kernels.proof.requiring import missing


@pytest.mark.timeout(900)
def test_every_device_test_passes_under_ttsem(tmp_path: Path) -> None:
    if not TTSEM.is_dir():
        missing(f"ttsem isn't in {TTSEM}; run: make install")
    outcome = run_tests(["tests/kernels/device"], tmp_path, under_ttsem=True)
    assert outcome.failed == [], outcome.output
    assert outcome.skipped == []
    assert outcome.passed
    assert "too large to be checked for races" not in outcome.output
