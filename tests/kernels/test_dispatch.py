"""Which path a call takes."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from tercet_kernels import choose_path
from tercet_kernels.dispatch import warn_once

X = torch.zeros(2, 3)


def test_a_cpu_tensor_takes_torch_by_itself() -> None:
    assert not choose_path("lora", X).is_triton


def test_the_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_LORA", "torch")
    assert choose_path("lora", X, "triton").is_triton


def test_the_operator_s_variable_beats_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_KERNELS", "torch")
    monkeypatch.setenv("TERCET_LORA", "triton")
    assert choose_path("lora", X).is_triton
    assert not choose_path("minhash", X).is_triton


def test_an_unknown_path_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"lora: path is 'cuda'; choose from auto, torch, triton"):
        choose_path("lora", X, "cuda")


def test_a_dtype_without_a_kernel_says_so() -> None:
    with pytest.raises(ValueError, match="dtype float64 has no kernel"):
        choose_path("lora", X.double(), "triton")


def test_a_vain_wish_of_the_environment_is_logged_once_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    monkeypatch.setenv("TERCET_KERNELS", "triton")
    with caplog.at_level(logging.WARNING, logger="tercet_kernels"):
        assert not choose_path("lora", X.double()).is_triton
        assert not choose_path("lora", X.double()).is_triton
    assert [record.message for record in caplog.records] == [
        "TERCET_KERNELS=triton is passed over for lora: dtype float64 has no kernel"
    ]


def test_the_package_imports_without_triton_and_peft() -> None:
    program = (
        "import sys\n"
        "for name in ('triton', 'peft', 'rapidfuzz', 'rensa', 'numba'):\n"
        "    sys.modules[name] = None\n"
        "import tercet_kernels\n"
        "print(tercet_kernels.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
