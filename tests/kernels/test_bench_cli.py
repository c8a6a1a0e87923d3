"""`tercet bench kernels`: the benchmark in a process of its own, by module name."""

from __future__ import annotations

import json

from tercet.cli.app import run_command


def test_tercet_bench_kernels_hands_its_arguments_and_its_exit_code_through(capfd, tmp_path):
    asked = ["bench", "kernels", "--out", str(tmp_path / "out"), "--", "--device", "cpu", "--only", "lora/tiny/"]
    assert run_command([*asked, "--list"]) == 0
    assert "lora/tiny/float32/r4/p0.05: frozen, tercet_beta" in capfd.readouterr().out
    assert run_command(["bench", "kernels", "--json", "--", "--device", "cpu", "--only", "nothing"]) == 2
    out, err = capfd.readouterr()
    assert json.loads(out)["exit_code"] == 2
    assert "no case has that in its name" in err


def test_another_benchmark_takes_no_arguments_of_it(capfd):
    assert run_command(["bench", "demo", "--", "--device", "cpu"]) == 2
    assert "bench demo takes no '--device'; leave it out" in capfd.readouterr().err
