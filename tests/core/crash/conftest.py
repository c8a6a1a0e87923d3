"""One undisturbed, traced run of twelve items; every crash test compares with what it gave."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.core.crash.trace import Call, trace_run

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.store.durable import file_digest
from tercet.store.shards import read_records
from tercet.store.summary import read_summary
from tercet.testing import require_program

RECIPE = Path(os.environ.get("TERCET_CRASH_RECIPE", Path(__file__).parent / "recipe.yaml"))
STRIDE = 1 if os.environ.get("TERCET_CRASH_POINTS") == "all" else 7  # `make test-crash` asks for all


@dataclass(frozen=True)
class State:
    """What a finished run must come out with, however often it was killed."""

    records: dict[str, list[str]]  # modality -> record ids in plan order
    digests: dict[str, str]  # shards and rejects, by path
    summary: dict[str, Any]
    leftovers: list[str]


@dataclass(frozen=True)
class Undisturbed:
    """The run that nobody killed."""

    run_dir: Path
    calls: list[Call]
    state: State


def state_of(run_dir: Path) -> State:
    shards = sorted(run_dir.rglob("*.parquet"))
    summary = read_summary(run_dir)
    return State(
        {name: [record.id for record in read_records(run_dir, name)] for name in summary["modalities"]},
        {path.relative_to(run_dir).as_posix(): file_digest(path) for path in shards if path.name[0] != "."},
        summary["modalities"],
        [path.name for path in run_dir.rglob("*.tmp")],
    )


def resume(run_dir: Path) -> State:
    run_recipe(load_recipe(RECIPE), run_dir, workers=0)
    return state_of(run_dir)


@pytest.fixture(scope="session")
def strace() -> str:
    return require_program("strace")


@pytest.fixture(scope="session")
def undisturbed(strace: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run_dir.mkdir()
    calls = trace_run(strace, RECIPE, run_dir)
    state = state_of(run_dir)
    assert sum(len(ids) for ids in state.records.values()) >= 6
    assert state.leftovers == []
    return Undisturbed(run_dir, calls, state)
