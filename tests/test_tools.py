"""The tools that the Makefile calls: what they change, and that the README says what the tree holds."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tercet.compat import remove_cuda_extension

REPOSITORY = Path(__file__).parents[1]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def torchaudio(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in ("lib/libtorchaudio.so", "lib/_torchaudio.abi3.so", "lib/notes.txt", "__init__.py"):
        (tmp_path / name).touch()
    return tmp_path


def test_torchaudios_cuda_extension_goes_where_torch_has_no_cuda_and_only_once(torchaudio: Path) -> None:
    fix = remove_cuda_extension
    assert fix(torchaudio, None).endswith("removed _torchaudio.abi3.so, libtorchaudio.so")
    assert sorted(path.name for path in torchaudio.rglob("*") if path.is_file()) == ["__init__.py", "notes.txt"]
    assert "already gone" in fix(torchaudio, None)


def test_the_tool_and_doctor_mend_by_the_same_function() -> None:
    from tercet import compat
    from tercet.cli import doctor

    assert tool("fix_torchaudio").mend_torchaudio is compat.mend_torchaudio is vars(doctor)["mend_torchaudio"]


def test_torchaudio_keeps_its_extension_beside_a_cuda_torch(torchaudio: Path) -> None:
    assert "left as it is" in remove_cuda_extension(torchaudio, "13.0")
    assert len(list((torchaudio / "lib").glob("*.so"))) == 2


def test_the_readme_shows_the_tree_as_it_is() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: the tree is read from `git ls-files`")
    assert tool("tree").with_tree(readme) == readme, "run: make tree"


def test_the_readmes_results_are_those_of_the_committed_run() -> None:
    table = tool("readme_table")
    readme = (REPOSITORY / "README.md").read_text()
    sections = {
        "results": table.committed(),
        "recipes": table.committed_recipes(),
        "trainers": table.committed_trainers(),
    }
    for name, text in sections.items():
        assert table.with_section(readme, name, text) == readme, "run: python tools/readme_table.py"


def test_the_pages_tables_are_those_of_the_committed_seeds_and_sweep() -> None:
    tables = tool("readme_table")
    page = tables.PAGE.read_text()
    for name, text in (("seeds", tables.committed_seeds()), ("ablations", tables.ablations())):
        assert tables.with_section(page, name, text) == page, "run: python tools/readme_table.py"


def test_the_result_table_shows_every_metric_with_its_interval() -> None:
    change = {"base": 96.7, "tuned": 5.0, "change": -91.7, "low": -95.0, "high": -88.25, "items": 60, "sources": 20}
    suite = {"role": "primary", "title": "held-out carriers", "leading": "wer", "metrics": {"a": change, "wer": change}}
    evaluation: dict[str, Any] = {
        "confidence": 0.95,
        "decision": {"verdict": "promote"},
        "suites": {"all": {**suite, "role": "general", "title": "everyday"}, "carriers": suite},
    }
    timings = {
        "command": "make demo",
        "machine": {"cores": 2, "memory_gib": 23, "processor": "chip", "python": "3.11.7"},
        "minutes": {"generate": 2.0},
        "total_minutes": 2.0,
        "peak_gib": 3.5,
    }
    written = tool("readme_table").section(evaluation, timings)
    assert "**Decision: promote**" in written
    numbers = "| 96.7 | 5.0 | -91.7 (-95.0 to -88.2) | 60 | 20 |"
    rows = [f"| {title} | {metric} {numbers}" for title in ("held-out carriers", "everyday") for metric in ("wer", "a")]
    assert "\n".join(rows) in written  # the primary suite and each suite's leading metric first
    assert "| 2.0 min | 2.0 min | 3.5 GiB |" in written


def test_the_demos_table_marks_a_step_over_its_budget() -> None:
    demo = tool("demo")
    costs = demo.Costs(seconds={"generate": 60.0, "gate": 301.0}, peak_kib={"gate": 3 * 2**20})
    lines = {line.split("  ")[0]: line for line in demo.table(costs).splitlines() if line}
    assert lines["gate"].split() == ["gate", "5.0", "5", "3.0", "over", "budget"]
    assert lines["generate"].split() == ["generate", "1.0", "3", "-"]
    assert lines["total"].split() == ["total", "6.0", "25", "3.0"]


def test_the_demo_counts_set_up_only_when_it_happened_now(tmp_path: Path) -> None:
    demo = tool("demo")
    stamp = tmp_path / "stamp"
    stamp.write_text("100\n")
    now = time.time()
    assert demo.set_up_seconds([stamp], now - 60) == 100
    os.utime(stamp, (now - 600, now - 600))
    assert demo.set_up_seconds([stamp], now - 60) == 0


def test_the_demo_sees_the_memory_of_this_process_and_its_threads() -> None:
    demo = tool("demo")
    assert demo.tree_kib(os.getpid()) > 10_000
    assert demo.tree_kib(2**22 + 1) == 0  # above the largest process id
