"""What `tools.peft_own_tests` tells of two runs of PEFT's tests."""

from __future__ import annotations

from typing import Any

import pytest
from tools.peft_own_tests import REASONS, differences, table


def outcome(word: str, *, computed: int = 0) -> dict[str, Any]:
    counts = {"layers": computed, "calls": computed, "computed": computed}
    return {"outcome": word, "message": f"why {word}", "seconds": 1.0} | counts


def test_a_test_that_differs_is_named_and_counts_unless_it_has_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    known = f"tests/test_a.py{next(iter(REASONS))}"
    plain = {
        "same": outcome("failed"),
        "broken": outcome("passed"),
        "lost": outcome("passed"),
        known: outcome("passed"),
    }
    fused = {"same": outcome("failed"), "broken": outcome("failed"), known: outcome("failed")}
    assert differences(plain, fused) == 2
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in told] == ["broken", "lost", known]
    assert told[0] == "broken: passed by PEFT, failed fused: why failed"
    assert told[2].endswith(next(iter(REASONS.values())))


def test_the_table_counts_the_tests_that_the_fused_path_computed() -> None:
    fused = {"a": outcome("passed", computed=3), "b": outcome("failed"), "c": outcome("passed", computed=1)}
    told = table({"PEFT": {"a": outcome("passed"), "b": outcome("failed")}, "fused": fused}).splitlines()
    assert told[2].split() == ["fused", "2", "1", "0", "3"]
    assert "tests in which the fused path computed: 2" in told
    assert told[-2:] == ["failed in both: 1", "       1  why failed"]
