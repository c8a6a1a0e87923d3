"""What the loop does when memory is full, a loss is no number, or decoded answers stop improving."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.core.train.test_loop import SETTINGS, Data, Squares, as_task, digest, fresh

from tercet.errors import CorruptError, UsageError
from tercet.recipe import EarlyStop
from tercet.train import checkpoints
from tercet.train.log import read_log
from tercet.train.loop import Callbacks, TrainingFailed, finish, train
from tercet.train.processes import Processes
from tercet.train.stopping import Watch, spread_out
from tercet.train.task import Example, Losses, Measured


def run(folder: Any, task: Any = None, *, data: Any = None, watch=None, said=None, stop_after=100, **settings):
    model, done = fresh(), [0]
    folder.mkdir(exist_ok=True)

    def on_step(step, loss, note):
        done[0] = step

    callbacks = Callbacks(on_step, lambda: done[0] == stop_after, (said if said is not None else []).append)
    train(model, task or as_task(), data or Data(), replace(SETTINGS, **settings), folder, callbacks, None, watch)
    return model


class Narrow(Squares):
    """Memory for `most` rows; the first forwards of a step may pass before it is full."""

    def __init__(self, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def loss(self, model, batch):
        self.seen.append(len(batch[0]))
        if len(batch[0]) > self.most:
            raise self.error("CUDA out of memory" if self.error is torch.OutOfMemoryError else "can't allocate memory")
        return super().loss(model, batch)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_full_memory_halves_the_micro_batch_and_gives_the_same_gradient(tmp_path, error):
    said: list[str] = []
    narrow = Narrow(3, error)
    model = run(tmp_path / "narrow", narrow, said=said)
    assert said == [
        "step 0: out of memory; micro-batches have 4 rows from here on, not 8",
        "step 0: out of memory; micro-batches have 2 rows from here on, not 4",
    ]
    assert narrow.seen[:3] == [8, 4, 2]
    whole = run(tmp_path / "whole")
    rows = [read_log(tmp_path / name) for name in ("narrow", "whole")]
    assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], rel=0.2)  # dropout differs by the cut
    assert digest(model) != digest(whole)


def test_without_dropout_halved_micro_batches_learn_the_same(tmp_path, monkeypatch):
    losses = []
    for name, task in (("narrow", Narrow(2)), ("whole", Squares())):
        model = fresh(dropout=0.0)
        (tmp_path / name).mkdir()
        train(model, task, Data(), SETTINGS, tmp_path / name)  # type: ignore[arg-type]
        losses.append([row["loss"] for row in read_log(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class InTwoTerms(Narrow):
    """The domain's mean and three times replay's."""

    def loss(self, model, batch):
        x, y = batch
        super().loss(model, batch)  # a full memory
        squares = ((model(x) - y) ** 2).mean(1)
        own = y[:, 0] == x[:, 0] * 2
        return Losses(squares[own].mean(), 3 * squares[~own].mean() if (~own).any() else 0.0)


@pytest.mark.parametrize("kind", [Narrow, InTwoTerms])
def test_replay_weighs_the_same_however_a_step_is_cut(tmp_path, kind):
    settings = replace(SETTINGS, replay=0.25, micro_batch=6)
    losses = []
    for name, most in (("narrow", 3), ("whole", 99)):
        (tmp_path / name).mkdir()
        train(fresh(dropout=0.0), kind(most), Data(replay=5), settings, tmp_path / name)
        losses.append([row["loss"] for row in read_log(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_halved_training_resumes_halved_to_the_same_bytes(tmp_path):
    whole = digest(run(tmp_path / "whole", Narrow(3)))
    run(tmp_path / "stopped", Narrow(3), stop_after=5)
    said: list[str] = []
    assert digest(run(tmp_path / "stopped", Narrow(3), said=said)) == whole
    assert said == []


def test_a_row_that_fits_nowhere_is_measured_and_the_fix_named(tmp_path):
    with pytest.raises(TrainingFailed, match=r"one row of 7 points doesn't fit into memory; set train\.activation"):
        run(tmp_path, Narrow(0), data=Data(sizes=(7.0,)))


def test_any_other_fault_is_not_taken_for_a_full_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shape"):
        run(tmp_path, Failing())


class Failing(Squares):
    def loss(self, model, batch):  # noqa: ARG002
        raise RuntimeError("shape mismatch")


def test_a_loss_that_is_no_number_names_the_records_of_its_batch(tmp_path):
    class Poisoned(Squares):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return loss * float("nan") if self.calls == 3 else loss

    data = Data()
    with pytest.raises(TrainingFailed, match=r"records of its batch: record-\d+(, record-\d+){7}$") as caught:
        run(tmp_path, Poisoned(), data=data)
    from tercet.train.order import Order

    order = Order(data, micro_batch=8, budget=None, accumulate=2, replay=0.0, seed=3)
    (part, _) = order.step(1)
    assert set(str(caught.value).split("batch: ")[1].split(", ")) == {f"record-{row}" for row in part.rows}


@pytest.mark.parametrize(
    ("schedule", "expected"), [("cosine", [0.5, 1, 1, 0.75, 0.25]), ("linear", [0.5, 1, 1, 2 / 3, 1 / 3]),
                               ("constant", [0.5, 1, 1, 1, 1])]
)  # fmt: skip
def test_the_rate_follows_the_schedule(schedule, expected):
    settings = replace(SETTINGS, steps=5, learning_rate=1.0, warmup_fraction=0.4, schedule=schedule)
    assert [settings.rate(step) for step in range(5)] == pytest.approx(expected)


def test_checkpoints_are_kept_by_rule(tmp_path):
    run(tmp_path, keep_every=5)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "checkpoint.safetensors", "step-000005.safetensors", "step-000010.safetensors",
    ]  # fmt: skip


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    run(tmp_path, pin="one")
    with pytest.raises(CorruptError, match=r"checkpoint\.safetensors: a checkpoint of another training"):
        run(tmp_path, pin="two")


def test_fp16_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=r"train\.precision: fp16 needs a GPU; set bf16 or fp32"):
        Processes("fp16")


def test_bf16_trains_and_keeps_the_adapter_in_fp32(tmp_path):
    model = fresh()
    folder = tmp_path / "bf16"
    folder.mkdir()
    train(model, Squares(), Data(), SETTINGS, folder, processes=Processes("bf16"))  # type: ignore[arg-type]
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    losses = [row["loss"] for row in read_log(folder)]
    exact = run(tmp_path / "fp32")
    assert losses[-1] < losses[0]
    assert digest(model) != digest(exact)


class Decoding(Squares):
    """A task whose decoded errors per 100 are what the test says, look by look."""

    primary_metric = "errors"

    def __init__(self, scores):
        super().__init__()
        self.scores, self.looks = scores, 0

    def answer(self, model, examples, on_units):  # noqa: ARG002
        assert not model.training
        self.looks += 1
        return [str(self.scores[self.looks - 1])] * len(examples)

    def measure(self, example, prediction):  # noqa: ARG002
        return Measured({"errors": (float(prediction) / 100, 1.0)})


def watching(task, patience=2):
    return Watch(task, EarlyStop(every=2, patience=patience), [Example("a", "a", "", None)])


def test_training_stops_when_decoded_answers_no_longer_improve_and_keeps_the_best(tmp_path):
    said: list[str] = []
    task: Any = Decoding([50, 30, 40, 35, 10])
    model = run(tmp_path / "watched", task, watch=watching(task), said=said)
    assert said == [
        "step 8: 2 looks without a better errors: it stops",
        "step 8: the adapter of step 4 is kept (errors 30.00 on what was watched)",
    ]
    assert digest(model) == digest(run(tmp_path / "four", stop_after=4))
    reached = checkpoints.reached(tmp_path / "watched")
    assert (reached.steps, reached.is_over, reached.best) == (8, True, 4)
    again = fresh()
    finish(again, tmp_path / "watched", "")
    assert digest(again) == digest(model)
    rows = read_log(tmp_path / "watched")
    assert [row["watched"] for row in rows if "watched" in row] == pytest.approx([50, 30, 40, 35])


def test_the_last_step_is_looked_at_whatever_the_rhythm(tmp_path):
    said: list[str] = []
    task: Any = Decoding([50, 30])
    run(tmp_path / "watched", task, watch=watching(task), said=said, steps=3)  # looks at 2, and at the end
    assert (task.looks, said) == (2, ["step 3: the adapter of step 3 is kept (errors 30.00 on what was watched)"])


def test_a_watched_training_that_was_stopped_resumes_to_the_same_bytes(tmp_path):
    scores = [50, 30, 40, 20, 45, 44]
    task: Any = Decoding(scores)
    whole = digest(run(tmp_path / "whole", task, watch=watching(task, 5)))
    first: Any = Decoding(scores)
    run(tmp_path / "stopped", first, watch=watching(first, 5), stop_after=5)
    second: Any = Decoding(scores[first.looks :])
    assert digest(run(tmp_path / "stopped", second, watch=watching(second, 5))) == whole
    assert first.looks + second.looks == 6


def test_a_share_without_records_cannot_be_watched():
    with pytest.raises(UsageError, match=r"train\.early_stop: share 0\.1 keeps no training record to watch"):
        Watch(Decoding([]), EarlyStop(), [])  # type: ignore[arg-type]


def test_watched_examples_are_spread_over_all():
    examples = [Example(str(n), "", "", None) for n in range(10)]
    assert [one.id for one in spread_out(examples, EarlyStop(examples=4))] == ["0", "2", "5", "7"]
    assert spread_out(examples, EarlyStop(examples=99)) == examples
