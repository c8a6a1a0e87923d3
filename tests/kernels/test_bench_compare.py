"""Two runs told apart: a planted slowdown is found, noise and a margin aren't."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tercet_kernels.bench.cli import main
from tercet_kernels.bench.compare import compare

KEYS = [f"lora|shape{number}|8|8|8|bfloat16|16|0.05|tercet_beta|step|yes" for number in range(40)]


def run(seed: int, *, noise: float = 0.03, slower: dict[str, float] | None = None, samples: int = 20) -> dict[str, Any]:
    """Make a run whose medians lie around 1 ms, with long tails upwards as real times have."""
    drawn = random.Random(seed)
    return {
        "device": "a GPU", "torch": "2", "triton": "3",
        "samples_ms": {
            key: [(slower or {}).get(key, 1.0) * (1 + noise * abs(drawn.gauss(0, 1))) for _ in range(samples)]
            for key in KEYS
        },
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_slowdown_of_a_fifth_is_found_where_it_was_planted_and_nowhere_else(seed):
    compared = compare(run(seed), run(seed + 100, slower={KEYS[7]: 1.2, KEYS[9]: 1 / 1.2}))
    assert [verdict.key for verdict in compared.verdicts if verdict.word == "worse"] == [KEYS[7]]
    assert [verdict.key for verdict in compared.verdicts if verdict.word == "better"] == [KEYS[9]]
    assert compared.is_worse


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3])
def test_noise_alone_is_never_worse(noise):
    for seed in range(5):
        compared = compare(run(seed, noise=noise), run(seed + 100, noise=noise))
        assert {verdict.word for verdict in compared.verdicts} == {"same"}


def test_a_change_within_the_margin_is_the_same_and_a_smaller_margin_finds_it():
    old, new = run(0, noise=0.005), run(1, noise=0.005, slower={KEYS[0]: 1.04})
    assert not compare(old, new).is_worse
    assert compare(old, new, margin=0.02).is_worse


def test_entries_of_one_run_alone_and_another_device_are_named():
    old, new = run(0), run(1) | {"device": "another GPU"}
    del old["samples_ms"][KEYS[0]], new["samples_ms"][KEYS[1]]
    lines = compare(old, new).lines()
    assert "the device differs: a GPU then, another GPU now" in lines
    assert any(line.startswith("only in the old run: lora shape1 ") for line in lines)
    assert any(line.startswith("only in the new run: lora shape0 ") for line in lines)


def test_the_command_compares_two_files_and_ends_with_3_where_one_is_worse(tmp_path, capsys):
    for name, made in (("old", run(0)), ("new", run(1, slower={KEYS[3]: 1.2})), ("other", {"rows": []})):
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    old, new, other = (str(tmp_path / f"{name}.json") for name in ("old", "new", "other"))
    assert main(["--compare", old, new]) == 3
    assert "1 worse, 0 better, 39 same" in capsys.readouterr().out
    assert main(["--compare", old, old]) == 0
    assert main(["--compare", old, new, "--margin", "0.5"]) == 0
    assert main(["--compare", old, other]) == 2
    assert "the new run has no samples_ms" in capsys.readouterr().out
