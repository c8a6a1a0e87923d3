"""LoRA on a CPU: the hand-written backward against autograd of the definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tercet_kernels.lora import Member, dora_linear, dora_reference, lora_group, lora_linear, lora_reference
from tercet_kernels.lora.dora import row_norms
from tercet_kernels.lora.eager import apply_mask, draw_mask

GENERATOR = torch.Generator()


def make(rows: int, inputs: int, outputs: int, rank: int, **numbers: float) -> tuple[Tensor, Member]:
    GENERATOR.manual_seed(rows * 7 + inputs * 5 + outputs * 3 + rank)

    def normal(*shape: int, over: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64) / over

    member = Member(
        normal(outputs, inputs, over=inputs**0.5),
        normal(outputs),
        normal(rank, inputs, over=inputs**0.5).requires_grad_(),
        normal(outputs, rank, over=rank**0.5).requires_grad_(),
        **numbers,
    )
    return normal(rows, inputs).requires_grad_(), member


@pytest.mark.parametrize(("dropout", "scaling"), list(itertools.product((0.0, 0.3), (1.0, 2.5))))
def test_the_gradients_are_right_in_fp64(dropout: float, scaling: float) -> None:
    x, member = make(5, 7, 6, 3, dropout=dropout, scaling=scaling)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same mask each time
        return lora_linear(x, Member(member.weight_NK, member.bias_N, a, b, scaling, dropout))

    assert torch.autograd.gradcheck(run, (x, member.a_RK, member.b_NR))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_group_equals_its_members_one_by_one(dropout: float) -> None:
    x, first = make(33, 40, 24, 4, dropout=dropout, scaling=2.0)
    _, second = make(33, 40, 17, 8, dropout=dropout)
    torch.manual_seed(1)
    ys = lora_group(x, [first, second])
    torch.manual_seed(1)
    seed = torch.randint(2**63 - 1, (1,))
    keeps = [mask_of(x, member, seed, index) for index, member in enumerate((first, second))]
    expected = [lora_reference(x, member, keep) for member, keep in zip((first, second), keeps, strict=True)]
    if keeps[0] is not None and keeps[1] is not None:
        assert not torch.equal(keeps[0], keeps[1])
    wanted = [x, first.a_RK, first.b_NR, second.a_RK, second.b_NR]
    dys = [torch.randn_like(y) for y in ys]
    for got, right in zip(
        (*ys, *torch.autograd.grad(ys, wanted, dys)),
        (*expected, *torch.autograd.grad(expected, wanted, dys)),
        strict=True,
    ):
        torch.testing.assert_close(got, right)


def mask_of(x: Tensor, member: Member, seed: Tensor, index: int) -> Tensor | None:
    if not member.dropout:
        return None
    return apply_mask(torch.ones_like(x).detach(), draw_mask(x, member, seed, index), member).bool()


def test_a_member_whose_output_is_unused_gets_no_gradient() -> None:
    x, first = make(9, 8, 5, 2, dropout=0.5)
    _, second = make(9, 8, 6, 2, dropout=0.5)
    _, used = lora_group(x, [first, second])
    used.sum().backward()
    assert first.a_RK.grad is None
    assert second.a_RK.grad is not None


def test_a_frozen_adapter_keeps_neither_x_nor_s() -> None:
    x, member = make(9, 8, 5, 2)
    frozen = Member(member.weight_NK, member.bias_N, member.a_RK.detach(), member.b_NR.detach())
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = lora_linear(x, frozen)
    assert kept
    assert all(tensor.shape not in {x.shape, (9, 2)} for tensor in kept)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(9, 5).double() @ (frozen.weight_NK + frozen.b_NR @ frozen.a_RK))


def test_the_share_of_kept_elements_is_the_one_asked_for() -> None:
    x, _ = torch.ones(1000, 1000), None
    for dropout in (0.05, 0.5, 0.9):
        member = Member(torch.zeros(1, 1000), None, torch.zeros(1, 1000), torch.zeros(1, 1), dropout=dropout)
        kept = apply_mask(x, draw_mask(x, member, torch.tensor([5]), 0), member)
        five_sigmas = 5 * (dropout * (1 - dropout) / x.numel()) ** 0.5
        assert abs(kept.mean().item() - (1 - dropout)) < five_sigmas


def test_dropping_everything_leaves_the_base() -> None:
    x, member = make(6, 8, 5, 2, dropout=1.0)
    torch.testing.assert_close(lora_linear(x, member), torch.nn.functional.linear(x, member.weight_NK, member.bias_N))


def test_evaluation_drops_nothing() -> None:
    x, member = make(6, 8, 5, 2, dropout=0.9)
    torch.testing.assert_close(lora_linear(x, member, training=False), lora_reference(x, member))


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (8,), (2, 3, 8)], ids=str)
def test_any_leading_shape_passes_also_an_empty_one(shape: tuple[int, ...]) -> None:
    _, member = make(6, 8, 5, 2, dropout=0.5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = lora_linear(x, member)
    assert y.shape == (*shape[:-1], 5)
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == shape
    assert member.a_RK.grad is not None and torch.isfinite(member.a_RK.grad).all()


def test_columns_apart_and_rows_apart_are_read_right() -> None:
    x, member = make(12, 8, 5, 2)
    apart = torch.zeros(12, 16, dtype=torch.float64)
    apart[:, ::2] = x.detach()
    torch.testing.assert_close(lora_linear(apart[:, ::2], member), lora_linear(x, member))
    dy = torch.randn(5, 12, dtype=torch.float64).T
    got = torch.autograd.grad(lora_linear(x, member), x, dy)[0]
    torch.testing.assert_close(got, torch.autograd.grad(lora_reference(x, member), x, dy)[0])


@pytest.mark.parametrize("base", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_keep_the_dtype_and_the_sums_of_fp32(base: torch.dtype, factors: torch.dtype) -> None:
    x, member = make(300, 64, 32, 4)
    low = Member(
        member.weight_NK.to(base),
        None,
        member.a_RK.detach().to(factors).requires_grad_(),
        member.b_NR.detach().to(factors).requires_grad_(),
    )
    y = lora_linear(x.detach().to(base), low)
    dy = torch.randn(300, 32).to(base)
    y.backward(dy)
    assert y.dtype == base
    assert low.a_RK.grad is not None and low.a_RK.grad.dtype == factors
    assert low.b_NR.grad is not None and low.b_NR.grad.dtype == factors
    a64 = low.a_RK.detach().to(base).double().requires_grad_()
    right = Member(low.weight_NK.double(), None, a64, low.b_NR.detach().to(base).double())
    lora_reference(x.detach().to(base).double(), right).backward(dy.double())
    assert relative(low.a_RK.grad, a64.grad) < 6e-3


def relative(got: Tensor, right: Tensor | None) -> float:
    assert right is not None
    return float((got.double() - right).norm() / right.norm())


def test_autocast_sets_the_dtype_of_the_arithmetic() -> None:
    x, member = make(70, 32, 16, 4)
    low = Member(member.weight_NK.float(), None, member.a_RK.detach().float().requires_grad_(), member.b_NR.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = lora_linear(x.detach().float(), low)
        y.sum().backward()  # also where the backward runs under autocast
    assert y.dtype == torch.bfloat16
    assert low.a_RK.grad is not None and low.a_RK.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a_RK": torch.zeros(2, 9)}, r"member 0: A is \(2, 9\)"),
        ({"bias_N": torch.zeros(4)}, r"bias has shape \(4,\), not \(5,\)"),
        ({"dropout": 1.5}, "dropout is 1.5; it must lie between 0 and 1"),
        ({"weight_NK": torch.zeros(5, 9)}, "x has 8 features; member 0 takes 9"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    sound: dict[str, object] = {
        "weight_NK": torch.zeros(5, 8),
        "bias_N": None,
        "a_RK": torch.zeros(2, 8),
        "b_NR": torch.zeros(5, 2),
    }
    with pytest.raises(ValueError, match=message):
        lora_linear(torch.zeros(3, 8), Member(**{**sound, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("wanted", ["x", "a", "b", "magnitude", "bias"])
def test_dora_has_the_gradients_of_its_definition(dropout: float, wanted: str) -> None:
    x, member = make(13, 10, 7, 3, dropout=dropout, scaling=1.7)
    assert member.bias_N is not None
    magnitude = (torch.rand(7, dtype=torch.float64) + 0.5).requires_grad_()
    torch.manual_seed(5)
    keep = mask_of(x, member, torch.randint(2**63 - 1, (1,)), 0)
    expected = dora_reference(x, member, magnitude, keep)
    tensors = {"x": x, "a": member.a_RK, "b": member.b_NR, "magnitude": magnitude, "bias": member.bias_N}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == wanted)
    torch.manual_seed(5)
    got = dora_linear(x, member, magnitude)
    torch.testing.assert_close(got.detach(), expected.detach())
    tensors[wanted].grad = None
    dy = torch.randn_like(got)
    right = torch.autograd.grad(dora_reference(x, member, magnitude, keep), tensors[wanted], dy)
    torch.testing.assert_close(torch.autograd.grad(got, tensors[wanted], dy), right)


def test_a_dora_norm_is_right_where_the_update_outweighs_the_weight() -> None:
    _, member = make(1, 40, 9, 4, scaling=30.0)
    built = member.weight_NK + 30.0 * (member.b_NR @ member.a_RK)
    got = row_norms(member.weight_NK.float(), member.a_RK.float(), member.b_NR.float(), 30.0)
    torch.testing.assert_close(got.detach(), built.norm(dim=1).float().detach())


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("rows", [5, 70])
def test_the_operator_keeps_torch_s_contract(rows: int, dropout: float) -> None:
    x, member = make(rows, 16, 12, 4)
    inputs = (
        x.detach().float().requires_grad_(),
        torch.tensor([7]),
        member.weight_NK.float(),
        None,
        member.a_RK.detach().float().requires_grad_(),
        member.b_NR.detach().float().requires_grad_(),
        1.5,
        dropout,
        "torch",
    )
    torch.library.opcheck(torch.ops.tercet.lora.default, inputs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_compiled_graph_is_whole_and_equal(dropout: float) -> None:
    _, member = make(1, 16, 12, 4)
    low = Member(
        member.weight_NK.float(),
        None,
        member.a_RK.detach().float().requires_grad_(),
        member.b_NR.detach().float().requires_grad_(),
        dropout=dropout,
    )
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        nonlocal graphs
        graphs += 1
        return graph

    run = torch.compile(lambda x: lora_linear(x, low).relu().sum(), fullgraph=True, backend=count, dynamic=True)
    for rows in (9, 17, 33):
        x = torch.randn(rows, 16, requires_grad=True)
        torch.manual_seed(3)
        expected = lora_linear(x, low).relu().sum()
        torch.manual_seed(3)
        got = run(x)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(expected, x))
    assert graphs == 1


def test_function_transforms_take_the_definition() -> None:
    x, member = make(6, 8, 5, 2)
    mapped = torch.func.vmap(lambda row: lora_linear(row[None], member)[0])(x)
    torch.testing.assert_close(mapped, lora_linear(x, member))


def test_a_second_derivative_is_refused_clearly() -> None:
    x, member = make(6, 8, 5, 2)
    (first,) = torch.autograd.grad(lora_linear(x, member).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
