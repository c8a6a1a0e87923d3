"""The benchmark's machinery, without a GPU: what it counts, what it refuses to time, what a cut-off run leaves."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tercet_kernels.bench import registry, timing
from tercet_kernels.bench.byte_model import lora_traffic
from tercet_kernels.bench.cli import main
from tercet_kernels.bench.entries import Case, Parity, Provider, Traffic
from tercet_kernels.bench.filter_cases import filter_cases
from tercet_kernels.bench.lora_cases import TINY, LoraProvider, lora_case
from tercet_kernels.bench.lora_providers import lora_providers, prepare_frozen, up_forced
from tercet_kernels.bench.report import COLUMNS, Report
from tercet_kernels.bench.runner import Run, model_ms
from tercet_kernels.lora import launch

CPU = torch.device("cpu")
KERNELS = Path(__file__).parents[2] / "kernels"


@pytest.fixture(autouse=True)
def ordinary_kernels():
    """Undo the suite's deterministic algorithms: filling memory would be timed, and dropout is torch's own here."""
    torch.use_deterministic_algorithms(mode=False)


def provider(name: str, *, error: float = 0.0, call=lambda: None, check=None) -> Provider:
    return Provider(name, check or (lambda _arguments: Parity(error, 1e-3, "y")), lambda _arguments: {"call": call})


def case(*providers: Provider, shape: str = "toy") -> Case:
    return Case(
        "toy", shape, 1, 1, "", torch.float32, lambda _device, _seed: object(), providers, baseline=providers[0].name
    )


def run_of(folder: Path, minutes: float = 1.0) -> Run:
    head = {"run": "now", "device": "toy", "commit": "none", "command": "toy", "torch": "2", "triton": "3"}
    clock = timing.Clock.of_minutes(minutes)
    return Run(CPU, 0, clock, Report(folder, head), bytes_per_second=1e9, say=lambda _line: None)


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "bench.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def traffic(name: str, mode: str, outputs: list[int], dropout: float) -> Traffic:
    found = lora_traffic(name, mode, 8192, 4096, outputs, dropout=dropout, element_bytes=2)
    assert found
    return found


def test_the_byte_model_of_8192_rows_at_4096_squared_is_the_one_counted_by_hand():
    x = y = 8192 * 4096 * 2  # 64 MiB a pass
    weight = 4096 * 4096 * 2

    def extra(name: str, mode: str, dropout: float) -> int | None:
        return traffic(name, mode, [4096], dropout).extra

    assert extra("peft", "step", 0.05) == 27 * x + 10 * y
    assert extra("peft_order_bf16", "step", 0.05) == 11 * x + 10 * y == 1_409_286_144
    assert extra("peft_bf16", "step", 0.0) == 6 * x + 10 * y
    assert extra("unsloth_order", "step", 0.0) == 5 * x + 5 * y
    assert extra("tercet_beta", "step", 0.05) == 3 * x + 2 * y
    assert extra("tercet_fused", "step", 0.05) == 3 * x + y  # its backward is the beta path's
    assert extra("peft_bf16", "forward", 0.05) == 3.5 * x + 6 * y
    frozen = traffic("frozen", "forward", [4096], 0.0)
    assert (frozen.extra, frozen.moved) == (0, x + y + weight)
    assert lora_traffic("unsloth_order", "step", 8192, 4096, [4096], dropout=0.05, element_bytes=2) is None


def test_a_group_pays_for_x_once_where_its_order_reads_it_once():
    x, y = 8192 * 4096 * 2, 8192 * (4096 + 1024 + 1024) * 2
    group = [4096, 1024, 1024]
    assert traffic("tercet_beta", "step", group, 0.05).extra == 3 * x + 2 * y
    assert traffic("peft_bf16", "step", group, 0.05).extra == 33 * x + 10 * y


def test_the_model_adds_extra_bytes_to_the_baselines_own_time():
    assert model_ms(moved=0, extra=3_000_000, base_ms=2.0, bytes_per_second=1e9) == pytest.approx(5.0)
    assert model_ms(moved=4_000_000, extra=None, base_ms=2.0, bytes_per_second=1e9) == pytest.approx(4.0)


@pytest.mark.parametrize("rate", [0.0, 0.05])
@pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)
def test_every_lora_provider_passes_parity_in_the_interpreter(shape, rate):
    some = lora_case(shape, 4, rate, torch.float32, lora_providers(CPU, rate))
    arguments = some.arguments(CPU, 0)
    ran = {one.name: one.check(arguments) for one in some.providers if not one.obstacle}
    assert {"frozen", "tercet_beta", "tercet_fused", "tercet_torch", "peft_order"} <= set(ran)
    assert {name: parity for name, parity in ran.items() if not parity.holds} == {}


@pytest.mark.parametrize("operator", ["earlier_max", "pairs_above", "minhash", "audio_stats", "edit_distance"])
def test_every_filter_provider_passes_parity_in_the_interpreter(operator):
    (some,) = (case for case in filter_cases(CPU, tiny=True) if case.operator == operator)
    arguments = some.arguments(CPU, 0)
    ran = {one.name: one.check(arguments) for one in some.providers if not one.obstacle}
    assert "tercet_triton" in ran
    assert {name: parity for name, parity in ran.items() if not parity.holds} == {}


def test_parity_notices_a_mask_that_is_not_the_one_drawn_and_a_missing_gradient():
    order = next(one for one in lora_providers(CPU, 0.05) if one.name == "peft_order")
    without_masks = LoraProvider("maskless", order.prepare, lambda arguments: [None] * len(arguments.members))
    some = lora_case(TINY[1], 4, 0.05, torch.float32, [order, without_masks])
    arguments = some.arguments(CPU, 0)
    assert [one.check(arguments).holds for one in some.providers] == [True, False]

    def torn(arguments):
        ready = prepare_frozen(arguments)
        return type(ready)(
            lambda: tuple(y.index_fill(0, torch.tensor([3]), torch.nan) for y in ready.forward()), ready.wrt
        )

    (frozen,) = lora_case(TINY[0], 4, 0.0, torch.float32, [LoraProvider("torn", torn, None)]).providers
    assert not frozen.check(make_tiny()).holds


def make_tiny():
    return lora_case(TINY[0], 4, 0.0, torch.float32, lora_providers(CPU, 0.0)).arguments(CPU, 0)


def test_the_up_step_is_forced_both_ways_and_left_as_it_was(monkeypatch):
    before, fused_calls = launch.prefers_fused_gemm, []
    plain = launch.up_fused

    def counted(*given):
        fused_calls.append(1)
        return plain(*given)

    monkeypatch.setattr(launch, "up_fused", counted)
    some = {one.name: one for one in lora_case(TINY[0], 4, 0.0, torch.float32, lora_providers(CPU, 0.0)).providers}
    some["tercet_beta"].check(make_tiny())
    assert fused_calls == []
    some["tercet_fused"].check(make_tiny())
    assert fused_calls == [1]
    with pytest.raises(KeyError), up_forced(fused=True):
        raise KeyError
    assert launch.prefers_fused_gemm is before


def test_a_failed_parity_gets_no_time_and_the_others_do(tmp_path):
    run = run_of(tmp_path)
    run.cases([case(provider("base"), provider("wrong", error=0.5), provider("nan", error=float("nan")))])
    rows = {row["provider"]: row for row in rows_in(tmp_path)}
    assert [rows[name]["status"] for name in ("base", "wrong", "nan")] == ["timed", "wrong", "wrong"]
    assert rows["wrong"]["median_ms"] == "" and rows["wrong"]["parity_error"] == "0.5"
    assert run.num_wrong == 2
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["parity_error"] == 0.5


def test_an_error_in_one_entry_is_written_down_and_the_run_goes_on(tmp_path):
    def explode(*_):
        raise RuntimeError("no kernel image\nis available")

    run = run_of(tmp_path)
    run.cases([
        case(provider("base"), provider("check fails", check=explode), provider("call fails", call=explode)),
        case(provider("base"), shape="next"),
    ])  # fmt: skip
    rows = rows_in(tmp_path)
    failed = {row["provider"]: row["note"] for row in rows if row["status"] == "failed"}
    assert failed == dict.fromkeys(("check fails", "call fails"), "RuntimeError: no kernel image is available")
    assert [row["shape"] for row in rows if row["status"] == "timed"] == ["toy", "next"]
    assert run.num_wrong == 0


def test_a_budget_that_ends_leaves_whole_files_that_say_what_was_not_reached(tmp_path):
    run = run_of(tmp_path, minutes=0.005)
    started = time.monotonic()
    slow = [case(provider("base", call=lambda: time.sleep(0.02)), shape=f"case{number}") for number in range(40)]
    run.cases(slow)
    assert time.monotonic() - started < 5
    rows = rows_in(tmp_path)
    assert [row["shape"] for row in rows] == [one.shape for one in slow]
    assert rows[0]["status"] == "timed" and rows[-1]["note"] == "not reached within --minutes"
    assert tuple(rows[0]) == COLUMNS
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == 40


def test_what_takes_too_long_is_stopped_and_an_earlier_alarm_survives():
    with timing.time_limit(30):
        with pytest.raises(timing.OverTime), timing.time_limit(0.05):
            time.sleep(5)
        assert 25 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30


def test_providers_take_turns_within_each_round():
    order = []

    def sample(name: str):
        order.append(name)
        return lambda: 1.0

    samplers = {name: functools.partial(sample, name) for name in "abc"}
    taken = timing.take(samplers, 0.0, timing.Clock.of_minutes(1), random.Random(0))
    assert {name: len(samples) for name, samples in taken.items()} == dict.fromkeys("abc", timing.LEAST_SAMPLES)
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({one[0] for one in rounds}) == 3, "the order is shuffled"


def test_the_gpu_list_begins_with_dropout_at_small_hidden_sizes_and_every_name_is_its_own():
    cases = registry.all_cases(torch.device("cuda"))
    assert cases[0].name == "lora/whisper-large-attn/bfloat16/r16/p0.05"
    names = [(one.name, tuple(provider.name for provider in one.providers)) for one in cases]
    assert len(set(names)) == len(names)
    assert {one.operator for one in cases} == {
        "lora", "earlier_max", "pairs_above", "minhash", "audio_stats", "edit_distance"
    }  # fmt: skip


def test_a_step_is_compared_with_the_frozen_step_of_its_own_run_and_with_the_byte_model(tmp_path):
    some = [one for one in lora_providers(CPU, 0.05) if one.name in ("frozen", "peft_order", "tercet_torch")]
    run = run_of(tmp_path)
    run.cases([lora_case(TINY[0], 4, 0.05, torch.float32, some)])
    rows = {(row["provider"], row["mode"]): row for row in run.report.rows}
    assert {mode for _, mode in rows} == {"step", "forward", "backward"}
    frozen, order = rows["frozen", "step"], rows["peft_order", "step"]
    assert frozen["ratio"] == 1.0 and order["ratio"] == order["median_ms"] / frozen["median_ms"]
    x, y = 70 * 48 * 4, 70 * 40 * 4
    assert order["model_ms"] == pytest.approx(frozen["median_ms"] + (11 * x + 10 * y) / 1e9 * 1e3)  # no casts in fp32
    assert order["percent_of_model"] == pytest.approx(100 * order["model_ms"] / order["median_ms"])
    assert order["p20_ms"] <= order["median_ms"] <= order["p80_ms"] and order["samples"] >= 3
    run.report.write_markdown()
    assert "### lora tiny (70, 48, 40) float32, r=4, p=0.05, step" in (tmp_path / "bench.md").read_text()


def test_a_results_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "bench.csv").write_text("kernel,time\n")
    with pytest.raises(ValueError, match="its columns aren't this version's"):
        run_of(tmp_path)


def test_the_command_runs_to_its_end_on_a_cpu_and_says_what_it_skipped(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tercet_kernels.bench", "--device", "cpu", "--minutes", "0.1"]
    ended = subprocess.run(
        [*command, "--only", "lora/tiny/", "earlier_max", "--out", str(tmp_path)],
        env=environment | {"PYTHONPATH": str(KERNELS), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "skipped: tercet_beta: the tensor is on cpu" in ended.stdout
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["torch"] == torch.__version__ and written["seed"] == 0 and written["self_test"]
    assert {row["op"] for row in written["rows"]} == {"lora", "earlier_max"}
    assert len(rows_in(tmp_path)) == len(written["rows"])
    assert written["seconds"] < 6 + 5 + 5, "a budget of 6 s, what had begun, and a slow machine's last words"


def test_a_wrong_result_makes_the_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "self_test_cases", lambda _device: [])
    monkeypatch.setattr(registry, "all_cases", lambda *_, **__: [case(provider("base"), provider("bad", error=1.0))])
    assert main(["--device", "cpu", "--minutes", "0.1", "--out", str(tmp_path)]) == 1
    monkeypatch.setattr(registry, "all_cases", lambda *_, **__: [case(provider("base"))])
    assert main(["--device", "cpu", "--minutes", "0.1", "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nothing"], "no case has that in its name"),
        (["--compare", "gone.json", "gone.json"], "gone.json"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(capsys, arguments, said):
    assert main(["--device", "cpu", *arguments]) == 2
    assert said in capsys.readouterr().out


def test_ctrl_c_says_where_the_measurements_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("tercet_kernels.bench.cli._run", interrupted)
    assert main(["--device", "cpu", "--out", str(tmp_path)]) == 130
    assert f"interrupted; what was measured so far is in {tmp_path}" in "".join(capsys.readouterr())
