import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tercet.compat import prepare_torchaudio
from tercet.errors import CorruptError
from tercet.recipe import Adapter
from tercet.train import adapters, checkpoints
from tercet.train.checkpoints import CHECKPOINT, reached
from tercet.train.log import Log
from tercet.train.loop import Callbacks, LoopSettings, TrainingFailed, train
from tercet.train.task import Row

SETTINGS = LoopSettings(
    steps=12, learning_rate=0.05, warmup_fraction=0.2, micro_batch=8, accumulate=2, checkpoint_every=4, seed=3
)


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = torch.nn.Linear(6, 4, bias=False)
        with torch.no_grad():
            self.inner.weight.copy_(torch.randn(4, 6, generator=generator))

    def forward(self, x):
        return self.inner(x)


class Data:
    """Rows that are their own number."""

    padded_to = 0.0
    unit = "points"

    def __init__(self, rows=40, sizes=(1.0,), replay=0):
        self.rows: Sequence[Row] = [Row(sizes[number % len(sizes)], 6, (f"record-{number}",)) for number in range(rows)]
        self.replay: Sequence[Row] = [Row(1.0, 6)] * replay

    def collate(self, rows, replay):
        held = [*rows, *(len(self.rows) + at for at in replay)]
        x = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(row)) for row in held])
        return x, torch.cat([x[: len(rows), :4] * 2, x[len(rows) :, :4] - 1])

    def describe(self):
        return {}


class Squares:  # only what the loop asks of a Task
    def __init__(self, broken_at=-1):
        self.calls, self.broken_at = 0, broken_at

    def loss(self, model, batch):
        self.calls += 1
        x, y = batch
        return ((model(x) - y) ** 2).mean() * (float("nan") if self.calls == self.broken_at else 1.0)


def as_task() -> Any:
    return Squares()


def fresh(dropout=0.1):
    prepare_torchaudio()
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's imports warn in their own ways
        return adapters.attach(Small(), Adapter(rank=2, dropout=dropout), "inner")


def digest(model):
    return hashlib.sha256(
        b"".join(v.detach().numpy().tobytes() for v in adapters.trainable(model).values())
    ).hexdigest()


def run(folder, model=None, task: Any = None, stop_after=100):
    model = model or fresh()
    folder.mkdir(exist_ok=True)
    done = [0]

    def on_step(step, loss, note):
        done[0] = step

    train(model, task or as_task(), Data(), SETTINGS, folder, Callbacks(on_step, lambda: done[0] == stop_after))
    return model


def test_training_lowers_the_loss_and_leaves_the_base_alone(tmp_path):
    model = fresh()
    before = model.base_model.model.inner.base_layer.weight.clone()
    run(tmp_path, model)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert torch.equal(model.base_model.model.inner.base_layer.weight, before)


@pytest.mark.parametrize("stopped_after", [1, 4, 5, 11])
def test_a_stopped_training_resumes_to_the_same_adapter(tmp_path, stopped_after):
    whole = digest(run(tmp_path / "whole"))
    folder = tmp_path / "stopped"
    run(folder, stop_after=stopped_after)
    assert reached(folder).steps == stopped_after
    assert digest(run(folder)) == whole


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(TrainingFailed, match=r"step 5: the loss is nan; .* lower train\.learning_rate \(now 0\.05\)"):
        run(tmp_path, task=Squares(broken_at=11))
    assert digest(run(tmp_path)) == digest(run(tmp_path / "whole"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"rot")
    with pytest.raises(CorruptError, match=r"checkpoint\.safetensors: damaged checkpoint"):
        run(tmp_path)
    with pytest.raises(CorruptError, match=r"damaged checkpoint"):
        reached(tmp_path)


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_adapter(tmp_path):
    class Steep(Squares):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return loss + (torch.sqrt(loss * 0) if self.calls == 11 else 0)  # the root's slope at 0 is infinite

    with pytest.raises(TrainingFailed, match=r"step 5: the gradient's norm is nan"):
        run(tmp_path, task=Steep())
    assert reached(tmp_path).steps == 4
    assert digest(run(tmp_path)) == digest(run(tmp_path / "whole"))


def test_a_log_of_steps_that_are_done_again_is_cut_back(tmp_path):
    run(tmp_path, stop_after=4)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5}\n{"step": 6}\n{"st')
    run(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [*range(1, 13)]


def test_a_norm_that_overflowed_is_null_in_the_log(tmp_path):
    Log(tmp_path, 0).write({"step": 1, "norm": float("inf"), "loss": 2.0})
    assert json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1, "norm": None, "loss": 2.0,
    }  # fmt: skip


def test_replay_without_general_examples_is_said(tmp_path):
    said: list[str] = []
    callbacks = Callbacks(lambda *_: None, lambda: False, said.append)
    train(fresh(), as_task(), Data(), replace(SETTINGS, replay=0.5, steps=1), tmp_path, callbacks)
    assert said == ["note: train.replay is 0.5, and there is no general example to mix in"]


def test_training_turns_gradients_on(tmp_path):
    with torch.no_grad():
        model = run(tmp_path)
    assert digest(model) == digest(run(tmp_path / "whole"))


def test_a_checkpoint_goes_to_where_its_parameters_are(tmp_path):
    """On a GPU AdamW would refuse moments on the CPU; the device without memory stands for one."""
    names = adapters.trainable(run(tmp_path))
    elsewhere: dict[str, torch.Tensor] = {
        name: torch.nn.Parameter(value.detach().to("meta")) for name, value in names.items()
    }
    optimiser = torch.optim.AdamW(list(elsewhere.values()))
    state, best = checkpoints.read(tmp_path / CHECKPOINT, elsewhere, optimiser, "")
    assert (state["step"], best) == (12, {})
    for value in elsewhere.values():
        kept = optimiser.state[value]
        assert {kept[name].device.type for name in ("exp_avg", "exp_avg_sq")} == {"meta"}
        assert kept["step"].device.type == "cpu"
