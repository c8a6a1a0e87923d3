"""Groups: found by name, computed once, never stale."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import pytest
import torch
from tests.kernels.peft.building import Attention, Model, OneMask, adapted, answer, assert_same, batch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tercet_kernels import dispatch
from tercet_kernels.lora import lora_group
from tercet_kernels.peft import explain, fuse, groups

TOLERANCE = 1e-5


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each group call computed."""
    seen: list[int] = []

    def watched(x: Tensor, members: list[Any], **options: Any) -> tuple[Tensor, ...]:
        seen.append(len(members))
        return lora_group(x, members, **options)

    monkeypatch.setattr(groups, "lora_group", watched)
    return seen


def attention(**config: Any) -> Model:
    return adapted(Attention(24), targets=["q_proj", "k_proj", "v_proj"], **config)


def projections(model: Model) -> tuple[Any, Any, Any]:
    base = model.base_model.model
    return base.q_proj, base.k_proj, base.v_proj


def test_linears_that_share_x_are_computed_once(sizes: list[int]) -> None:
    model = attention(r=4)
    fuse(model)
    answer(model, batch())
    assert sizes == [3]
    assert {row.group for row in explain(model)} == {"base_model.model: q_proj, k_proj, v_proj"}


@pytest.mark.parametrize(
    ("parent", "names", "expected"),
    [
        ("self_attn", ("q_proj", "k_proj", "v_proj", "out_proj"), "q_proj, k_proj, v_proj"),
        ("encoder_attn", ("q_proj", "k_proj", "v_proj"), "k_proj, v_proj"),
        ("attn1", ("to_q", "to_k", "to_v"), "to_q, to_k, to_v"),
        ("attn2", ("to_q", "to_k", "to_v"), "to_k, to_v"),
        ("attn", ("to_q", "to_v", "add_q_proj", "add_k_proj"), "to_q, to_v|add_q_proj, add_k_proj"),
        ("mlp", ("gate_proj", "up_proj", "down_proj"), "gate_proj, up_proj"),
        ("attention", ("query", "key", "value"), "query, key, value"),
        ("crossattention", ("query", "key", "value"), "key, value"),
        ("EncDecAttention", ("q", "k", "v"), "k, v"),
        ("other", ("fc1", "fc2"), ""),
        ("encoder_attn", ("q_proj", "v_proj"), ""),
    ],
)
def test_groups_are_found_by_name(parent: str, names: tuple[str, ...], expected: str) -> None:
    inner = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
    model = adapted(nn.ModuleDict({parent: inner}), r=2, targets=list(names))
    fuse(model)
    found = dict.fromkeys(row.group.partition(": ")[2] for row in explain(model) if row.group)
    assert "|".join(found) == expected


def test_another_x_or_a_changed_x_is_computed_anew(caplog: pytest.LogCaptureFixture) -> None:
    dispatch.warn_once.cache_clear()
    model, x = attention(r=4), batch()
    q, k, v = projections(model)
    expected = k(x * 2), v(x + 1)
    fuse(model)
    other = x * 2
    with caplog.at_level(logging.WARNING, "tercet_kernels"):
        for _ in range(2):
            q(x)
            torch.testing.assert_close(k(other), expected[0])
            x.add_(1)
            torch.testing.assert_close(v(x), expected[1])
            x.sub_(1)
    assert len(caplog.records) == 1
    assert "q_proj, k_proj, v_proj: called with different x" in caplog.text
    assert "fuse(model, groups=False)" in caplog.text


def test_an_x_changed_in_place_is_another_x() -> None:
    model, x = attention(r=4), batch()
    q, k, _ = projections(model)
    expected = k(x + 1)
    fuse(model)
    q(x)
    torch.testing.assert_close(k(x.add_(1)), expected)


def test_a_thread_takes_nothing_from_another(sizes: list[int]) -> None:
    model, x = attention(r=4), batch()
    q, k, _ = projections(model)
    fuse(model)
    q(x)
    thread = threading.Thread(target=k, args=(x,))
    thread.start()
    thread.join()
    assert sizes == [3, 3]
    k(x)
    assert sizes == [3, 3]


def test_a_result_is_never_handed_over_to_other_modes_or_another_adapter(sizes: list[int]) -> None:
    model, x = attention(r=4), batch()
    q, k, v = projections(model)
    fuse(model)
    with torch.no_grad():
        q(x)
    assert k(x).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert v(x).dtype == torch.bfloat16
    q(x)
    with torch.no_grad():
        k.lora_B["default"].weight.mul_(3)
    changed = k(x)
    assert torch.equal(changed, k(x))
    q(x)
    v.scaling["default"] *= 2
    doubled = v(x)
    assert torch.equal(doubled, v(x))
    assert sizes == [3] * 8  # q's last result came from k's last call: the same x, modes and weights


def test_a_member_that_peft_must_run_leaves_the_others_a_group(sizes: list[int]) -> None:
    model, x = attention(r=4), batch()
    expected = answer(model, x)
    fuse(model)
    projections(model)[1].base_layer.register_forward_hook(lambda *_: None)
    assert_same(answer(model, x), expected, TOLERANCE)
    assert sizes == [2]


def test_the_outputs_of_a_group_can_be_changed_in_place() -> None:
    model, x = attention(r=4), batch()
    q, k, v = projections(model)

    def run() -> list[Tensor]:
        rows = x.clone().requires_grad_()
        y = q(rows).mul_(2)[..., :12] + k(rows).add_(1) * v(rows)
        return [y, torch.autograd.grad(y.sum(), rows)[0]]

    expected = run()
    fuse(model)
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("whole", [True, False], ids=["whole attention", "k and v alone"])
def test_checkpointing_draws_the_same_masks_again(
    reentrant: bool, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = attention(r=4, lora_dropout=0.5), batch()
    fuse(model)
    q, k, v = projections(model)
    monkeypatch.setattr(model, "forward", lambda x: run(x, checkpointed=False))

    def inner(x: Tensor, q_y: Tensor) -> Any:
        q_y = q(x) if whole else q_y
        return torch.tanh(q_y[..., :12] * k(x)) * v(x)

    def run(x: Tensor, *, checkpointed: bool) -> Any:
        torch.manual_seed(5)
        q_y = x if whole else q(x)
        return checkpoint(inner, x, q_y, use_reentrant=reentrant) if checkpointed else inner(x, q_y)

    # a checkpoint that splits a group computes k and v apart, so only the whole one draws as without
    monkeypatch.setattr(model, "forward", lambda x: run(x, checkpointed=True))
    first = answer(model, x)
    assert_same(answer(model, x), first, 0.0)
    if whole:
        monkeypatch.setattr(model, "forward", lambda x: run(x, checkpointed=False))
        assert_same(answer(model, x), first, 1e-6)
    numeric = directional(model, x, lambda x: run(x, checkpointed=True))
    assert numeric < 1e-5


def directional(model: Model, x: Tensor, run: Any) -> float:
    """Return how far the gradient of x is from a central difference, in fp64: the masks of both passes must agree."""
    model.double()
    rows = x.double().requires_grad_()
    run(rows).square().sum().backward()
    assert rows.grad is not None
    along = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    # with gradients on, as in the exact run: without, a checkpoint that splits a group would draw other masks
    shifted = [(rows.detach() + step * along).requires_grad_() for step in (1e-6, -1e-6)]
    ahead, behind = (run(x).detach().square().sum() for x in shifted)
    exact = (rows.grad * along).sum()
    return float(abs((ahead - behind) / 2e-6 - exact) / abs(exact))


def test_two_threads_on_one_model_give_what_one_gives() -> None:
    model = attention(r=4).eval()
    fuse(model)
    inputs = [batch(rows) for rows in (2, 3, 4, 5)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.no_grad():
            wrong.extend(number for _ in range(50) if not torch.equal(model(inputs[number]), expected[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_of_a_graph_outlives_its_x_or_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = attention(r=4), batch()
    q, *_ = projections(model)
    fuse(model)
    group = q.tercet_place.group
    q(x)
    kept = [weakref.ref(y) for *_, y in group._local.stash.waiting.values()]
    assert len(kept) == 2
    alive: list[bool] = []

    def watched(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
        gc.collect()
        alive.extend(ref() is not None for ref in kept)
        return lora_group(*arguments, **options)

    monkeypatch.setattr(groups, "lora_group", watched)
    q(batch())  # the old graph goes before the new one is made, or the peak would hold both
    assert alive == [False, False]
    before: Any = group._local
    model(x)
    assert before.stash is None
    with torch.no_grad():
        temporary = x + 1
        q(temporary)
        stash = group._local.stash
        assert len(stash.waiting) == 2
        del temporary
    assert not stash.waiting


def test_inference_mode_runs_each_alone(sizes: list[int]) -> None:
    model = attention(r=4).eval()
    x = batch()
    expected = model(x)
    fuse(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(x.clone()), expected)
    assert sizes == [1, 1, 1]


def test_the_members_of_a_group_drop_different_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = attention(r=4, lora_dropout=0.5), batch()
    mask = OneMask(model, monkeypatch.setattr)
    mask.peft()
    expected = answer(model, x)
    mask.ours()
    fuse(model)
    assert_same(answer(model, x), expected, TOLERANCE)
