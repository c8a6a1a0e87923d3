"""Each package that the project was asked to use has a job: a module of ours that imports it, and a test of that.

A row whose import or test disappears turns red, so that no package stays as decoration.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# package, what of ours imports it (for the export: the test, which reads our file with it), the test of its job
JOBS = [
    ("torch", "src/tercet/train/loop.py",
     "tests/core/train/test_loop.py::test_training_lowers_the_loss_and_leaves_the_base_alone"),
    ("transformers", "modalities/tercet_audio/transcribe.py",
     "tests/core/models/test_weights.py::test_the_converted_weights_transcribe_alike_in_openai_whisper"),
    ("transformers", "src/tercet/backends/transformers_backend.py",
     "tests/core/backends/test_transformers_backend.py::test_a_sampled_answer_depends_on_its_request_alone"),
    ("peft", "src/tercet/train/adapters.py",
     "tests/core/train/test_adapters.py::test_a_saved_adapter_loads_at_its_scale"),
    ("PIL", "modalities/tercet_image/renderer.py",
     "tests/modalities/image/test_pictures.py::test_every_colour_that_a_scene_names_is_on_the_picture"),
    ("torchaudio", "src/tercet/compat.py",
     "tests/modalities/audio/test_torchaudio.py::test_torchaudio_and_scipy_convolve_alike"),
    ("torchaudio", "src/tercet/compat.py",
     "tests/modalities/audio/test_torchaudio.py::"
     "test_every_window_has_its_own_mask_whether_it_is_kept_or_made_each_time"),
    ("whisper", "modalities/tercet_audio/metrics.py",
     "tests/modalities/audio/test_metrics.py::test_all_errors_are_those_of_jiwer_and_split_into_two_parts"),
    ("whisper", "tests/modalities/audio/test_export.py",
     "tests/modalities/audio/test_export.py::"
     "test_the_merged_model_loads_in_openai_whisper_with_the_same_logits_and_transcript"),
    ("TTS", "modalities/tercet_audio/engines/coqui.py",
     "tests/modalities/audio/test_coqui.py::test_it_speaks_finite_samples_at_the_models_rate"),
    ("diffusers", "modalities/tercet_image/pipelines.py",
     "tests/modalities/image/test_diffusion.py::test_a_recipe_runs_from_a_model_in_its_folder_to_shards"),
]  # fmt: skip
ASKED = {"torch", "transformers", "peft", "PIL", "torchaudio", "whisper", "TTS", "diffusers"}


def imported(path: Path) -> set[str]:
    """List the packages that a module imports when it runs, at its top or in its functions."""
    parsed = ast.parse(path.read_text())
    for_types = {
        id(node)
        for guard in ast.walk(parsed)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test)
        for node in ast.walk(guard)
    }
    found = set()
    for node in ast.walk(parsed):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def faults(tree: Path, package: str, module: str, test: str) -> list[str]:
    """Say what a row claims that isn't so."""
    file, name = test.split("::")
    wrong = []
    if not (tree / module).is_file() or package not in imported(tree / module):
        wrong.append(f"{module} doesn't import {package}")
    tests = ast.parse((tree / file).read_text()).body if (tree / file).is_file() else []
    if name not in {node.name for node in tests if isinstance(node, ast.FunctionDef)}:
        wrong.append(f"{file} has no test {name}")
    return wrong


@pytest.mark.parametrize(("package", "module", "test"), JOBS, ids=[f"{row[0]}-{Path(row[1]).stem}" for row in JOBS])
def test_a_package_is_used_where_its_test_says(package: str, module: str, test: str) -> None:
    assert faults(REPOSITORY, package, module, test) == []


def test_every_package_that_was_asked_for_has_a_row() -> None:
    assert {package for package, _, _ in JOBS} == ASKED


@pytest.mark.skipif(not (REPOSITORY / "kernels").is_dir(), reason="no kernels in the tree")
def test_triton_is_imported_by_the_fused_kernels() -> None:
    fused = list((REPOSITORY / "kernels").rglob("fused.py"))
    assert fused
    assert all("triton" in imported(path) for path in fused)


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-cuda.txt"])
def test_triton_is_held_to_what_this_torch_takes(name: str) -> None:
    lines = (REPOSITORY / name).read_text().splitlines()
    assert len([line for line in lines if re.match(r"triton(==|>=)\d", line)]) == 1


@pytest.mark.parametrize(
    ("module", "test", "said"),
    [
        ("import os\n", "def test_a(): ...\n", "m.py doesn't import torch"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
            "def test_a(): ...\n",
            "m.py doesn't",
        ),
        ("def run():\n    from torch import nn\n", "def test_b(): ...\n", "t.py has no test test_a"),
    ],
)
def test_a_row_that_lost_its_import_or_its_test_is_named(tmp_path: Path, module: str, test: str, said: str) -> None:
    (tmp_path / "m.py").write_text(module)
    (tmp_path / "t.py").write_text(test)
    (fault,) = faults(tmp_path, "torch", "m.py", "t.py::test_a")
    assert fault.startswith(said)
