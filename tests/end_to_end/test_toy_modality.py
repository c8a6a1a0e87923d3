"""A fourth modality from a wheel of its own runs and is reported without a change to the core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SOURCE = Path(__file__).with_name("toy_modality")
RECIPE = """\
version: 1
name: sums
modalities:
  sums:
    quota: {quota}
    gates:
      at_most: {{limit: 5}}
"""
CONTRACT = """\
from tercet import registry
from tercet.testing import check_modality
check_modality(registry.modality("sums"), {"quota": 9}, larger_data={"quota": 30}, make=9)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build the toy's wheel and install it into a folder that only this test's processes see."""
    folder = tmp_path_factory.mktemp("toy")
    build: list[str | Path] = ["-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", SOURCE]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    [wheel] = (folder / "dist").glob("*.whl")
    install: list[str | Path] = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", folder / "site", wheel]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def tercet(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("tercet")
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)


def recipe(folder: Path, quota: int) -> Path:
    path = folder / "sums.yaml"
    path.write_text(RECIPE.format(quota=quota))
    return path


def test_a_modality_from_another_wheel_is_run_and_reported(environment: dict[str, str], tmp_path: Path) -> None:
    asked = recipe(tmp_path, 20)
    validated = tercet(environment, "validate", asked, "--json")
    assert validated.returncode == 0, validated.stdout + validated.stderr

    done = tercet(environment, "run", asked, "--out", tmp_path / "made", "--workers", "1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["modalities"]["sums"]
    # 20 sums of 0..4 and 0..3; the answers 6 and 7 are above 5; an answer may come three times: 3, 4
    expected = {(left, right): left + right for left in range(5) for right in range(4)}
    small = [answer for answer in expected.values() if answer <= 5]
    kept = [answer for at, answer in enumerate(small) if small[: at + 1].count(answer) <= 3]
    assert counts["planned"] == 20
    assert counts["accepted"] == len(kept)

    [shard] = (tmp_path / "made" / "shards" / "sums").rglob("*.parquet")
    assert pq.read_table(shard)["answer"].to_pylist() == kept

    reported = tercet(environment, "report", tmp_path / "made")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    page = (tmp_path / "made" / "report.html").read_text()
    assert "What is 0 plus 0?" in page
    assert "too large" in page


def test_a_misspelt_key_in_its_section_is_explained(environment: dict[str, str], tmp_path: Path) -> None:
    asked = recipe(tmp_path, 20)
    asked.write_text(asked.read_text().replace("limit:", "limt:"))
    validated = tercet(environment, "validate", asked)
    assert validated.returncode == 2
    message = " ".join((validated.stdout + validated.stderr).split())
    assert "modalities.sums.gates.at_most.limt" in message
    assert "did you mean 'limit'?" in message


def test_it_keeps_the_contract_that_ours_keep(environment: dict[str, str]) -> None:
    checked = subprocess.run(
        [sys.executable, "-c", CONTRACT], env=environment, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_without_its_wheel_the_recipe_says_what_is_missing(tmp_path: Path) -> None:
    validated = tercet(dict(os.environ), "validate", recipe(tmp_path, 20))
    assert validated.returncode == 2
    assert "modalities.sums: no such modality" in " ".join((validated.stdout + validated.stderr).split())
