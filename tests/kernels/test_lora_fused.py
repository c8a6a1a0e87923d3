"""The LoRA kernels in Triton's interpreter, against the definition in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.drawing import examples
from torch import Tensor

from tercet_kernels.lora import Member, lora_group, lora_reference
from tercet_kernels.lora.launch import backward_down, backward_up, down, reduce, up, up_fused
from tercet_kernels.lora.tiles import Tile
from tercet_kernels.philox import keep_mask, quantise

# relative Frobenius error against fp64 of the same rounded inputs (kernels.md A5.10)
BARS = {torch.float32: {"y": 1e-6, "grad": 2e-6, "s": 1e-6}, torch.float16: {"y": 6e-4, "grad": 6e-4, "s": 5e-4}}
NOT_WORSE_THAN_EAGER = 1.25  # of the eager path's own error, or half the bar
FEW = 1000  # numbers whose roundings are a matter of luck
SMALL = Tile(rows=16, columns=16, depth=16)
EIGHTS = Tile(rows=16, columns=32, depth=16)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Draw M, K, N, R: at most one of the first three above 128, so that an example takes no second."""
    big = draw(st.sampled_from(["M", "K", "N", "none"]))
    small = st.one_of(st.integers(1, 40), st.sampled_from([1, 7, 16, 63, 64, 65, 128]))
    large = st.sampled_from([129, 200, 257])
    m, k, n = (draw(large if big == name else small) for name in "MKN")
    return m, k, n, draw(st.sampled_from([1, 2, 4, 8, 12, 16, 24, 48, 64, 100, 128]))


def make(m: int, k: int, n: int, r: int, dtype: torch.dtype, dropout: float, *, seed: int = 0) -> tuple[Tensor, Member]:
    generator = torch.Generator().manual_seed(seed + m + 3 * k + 5 * n + 7 * r)

    def normal(*shape: int, over: int = 1) -> Tensor:
        return torch.randn(*shape, generator=generator).div(over**0.5).to(dtype)

    member = Member(
        normal(n, k, over=k),
        normal(n),
        normal(r, k, over=k).float().requires_grad_(),  # fp32 factors beside any base
        normal(n, r, over=r).float().requires_grad_(),
        1.5,
        dropout,
    )
    return normal(m, k).requires_grad_(), member


def exact(x: Tensor, member: Member, keep: Tensor | None, dy: Tensor) -> dict[str, Tensor]:
    """Return y and the gradients in fp64, from the same rounded inputs."""
    x64 = x.detach().double().requires_grad_()
    a64, b64 = (factor.detach().to(x.dtype).double().requires_grad_() for factor in (member.a_RK, member.b_NR))
    bias = None if member.bias_N is None else member.bias_N.double()
    weight = member.weight_NK.double()
    y = lora_reference(x64, Member(weight, bias, a64, b64, member.scaling, member.dropout), keep)
    dx, da, db = torch.autograd.grad(y, (x64, a64, b64), dy.double())
    return {"y": y.detach(), "dx": dx, "da": da, "db": db}


def sizes(x: Tensor, member: Member, dy: Tensor) -> dict[str, float]:
    """Return how large each result would be if none of its terms cancelled: roundings are measured against that."""
    x, dy, weight, a, b = (
        tensor.detach().double().square() for tensor in (x, dy, member.weight_NK, member.a_RK, member.b_NR)
    )
    factor = member.factor**2
    s, ds = factor * x @ a.T, factor * dy @ b
    squares = {"y": x @ weight.T + s @ b.T, "dx": dy @ weight + ds @ a, "da": ds.T @ x, "db": dy.T @ s}
    return {name: float(square.sum().sqrt()) for name, square in squares.items()}


def bar_for(bar: float, result: Tensor) -> float:
    """Return the bar of a Frobenius error, wider where few numbers leave its size to luck."""
    return bar * (1 + 2 / math.sqrt(result.numel()))


def error(got: Tensor, right: Tensor, size: float = 0.0) -> float:
    assert torch.isfinite(got).all(), "unwritten or overflowed"
    return float((got.double() - right).norm()) / max(float(right.norm()), size, 1e-30)


def run(x: Tensor, member: Member, dy: Tensor, path: str) -> dict[str, Tensor]:
    torch.manual_seed(11)
    (y,) = lora_group(x, [member], path=path)
    dx, da, db = torch.autograd.grad(y, (x, member.a_RK, member.b_NR), dy)
    return {"y": y.detach(), "dx": dx, "da": da, "db": db}


def drawn_mask(x: Tensor, member: Member, index: int = 0) -> Tensor | None:
    """Return the mask that the Triton path makes of the seed that `run` lets torch draw."""
    if not member.dropout:
        return None
    torch.manual_seed(11)
    seed = int(torch.randint(2**63 - 1, (1,)))
    return keep_mask(seed, x.shape[0], x.shape[1], quantise(member.dropout), index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@settings(max_examples=examples(25), deadline=None)
@given(shape=shapes(), dropout=st.sampled_from([0.0, 0.05, 0.5]))
def test_outputs_and_gradients_match_the_fp64_definition(
    dtype: torch.dtype, shape: tuple[int, int, int, int], dropout: float
) -> None:
    x, member = make(*shape, dtype, dropout)
    dy = torch.randn(shape[0], shape[2], generator=torch.Generator().manual_seed(1)).to(dtype)
    got, right = run(x, member, dy, "triton"), exact(x, member, drawn_mask(x, member), dy)
    eager = None if dropout else run(x, member, dy, "torch")  # with dropout the eager path draws another mask
    size = sizes(x, member, dy)
    for name in right:
        bar = bar_for(BARS[dtype]["y" if name in ("y", "dx") else "grad"], right[name])
        off = error(got[name], right[name], size[name])
        assert off <= bar, name
        if eager is not None and right[name].numel() >= FEW:
            assert off <= max(NOT_WORSE_THAN_EAGER * error(eager[name], right[name], size[name]), bar / 2), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@settings(max_examples=examples(8, 100), deadline=None)
@given(
    m=st.integers(1, 50), k=st.integers(1, 70), n=st.integers(1, 50), r=st.sampled_from([1, 4, 16, 20]),
    dropout=st.sampled_from([0.0, 0.3]), tile=st.sampled_from([SMALL, EIGHTS]),
)  # fmt: skip
def test_many_small_programs_agree_with_one(
    dtype: torch.dtype, m: int, k: int, n: int, r: int, dropout: float, tile: Tile
) -> None:
    x, member = make(m, k, n, r, dtype, dropout)
    x = x.detach()
    dy = torch.randn(m, n, generator=torch.Generator().manual_seed(1)).to(dtype)
    seed = torch.tensor([2**40 + 12345])
    keep = keep_mask(int(seed), m, k, quantise(dropout)) if dropout else None
    right = exact(x, member, keep, dy)
    (s,), masks = down(x, [member], seed, tile)
    bars, size = BARS[dtype], sizes(x, member, dy)
    assert error(up(x, s, member, tile), right["y"], size["y"]) <= bar_for(bars["y"], right["y"])
    assert error(up_fused(x, s, member, tile), right["y"], size["y"]) <= bar_for(bars["y"], right["y"])
    ds, db = backward_up(dy, s, member, wants_b=True, tile=tile)
    assert db is not None
    assert error(db, right["db"], size["db"]) <= bar_for(bars["grad"], db)
    dx, (da,) = backward_down(x, [ds], [member], masks, seed, wants_x=True, indices=[0], tile=tile)
    assert dx is not None and da is not None
    assert error(dx.addmm_(dy, member.weight_NK), right["dx"], size["dx"]) <= bar_for(bars["y"], dx)
    assert error(da, right["da"], size["da"]) <= bar_for(bars["grad"], da)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_row_blocks_of_one_strip_add_up(dropout: float) -> None:
    x, member = make(70, 320, 330, 5, torch.float32, dropout)  # so many columns that one strip holds all the rows
    dy = torch.randn(70, 330, generator=torch.Generator().manual_seed(1))
    seed = torch.tensor([7])
    right = exact(x, member, keep_mask(7, 70, 320, quantise(dropout)) if dropout else None, dy)
    x = x.detach()
    (s,), masks = down(x, [member], seed, SMALL)
    ds, db = backward_up(dy, s, member, wants_b=True, tile=SMALL)
    _, (da,) = backward_down(x, [ds], [member], masks, seed, wants_x=True, indices=[0], tile=SMALL)
    assert db is not None
    assert da is not None
    assert error(db, right["db"]) <= 2e-6
    assert error(da, right["da"]) <= 2e-6


@pytest.mark.parametrize("ranks", [(8, 8), (4, 20, 16), (48, 48, 48), (4, 4, 4, 4, 4)], ids=str)
def test_a_group_reads_x_once_and_keeps_its_masks_apart(ranks: tuple[int, ...]) -> None:
    x, _ = make(37, 50, 1, 1, torch.float32, 0.3)
    members = [make(37, 50, 24 + 8 * index, rank, torch.float32, 0.3)[1] for index, rank in enumerate(ranks)]
    torch.manual_seed(11)
    ys = lora_group(x, members, path="triton")
    dys = [torch.randn_like(y) for y in ys]
    wanted = [x, *(factor for member in members for factor in (member.a_RK, member.b_NR))]
    got = torch.autograd.grad(ys, wanted, dys)
    masks = [drawn_mask(x, member, index) for index, member in enumerate(members)]
    right = [exact(x, member, mask, dy) for member, mask, dy in zip(members, masks, dys, strict=True)]
    assert error(got[0], torch.stack([part["dx"] for part in right]).sum(0)) <= 1e-6
    for index, part in enumerate(right):
        assert error(ys[index].detach(), part["y"]) <= 1e-6
        assert error(got[1 + 2 * index], part["da"]) <= 2e-6
        assert error(got[2 + 2 * index], part["db"]) <= 2e-6


def test_a_member_without_a_gradient_leaves_the_other_s_mask_in_place() -> None:
    x, first = make(20, 32, 16, 4, torch.float32, 0.5)
    _, second = make(20, 32, 24, 4, torch.float32, 0.5)
    torch.manual_seed(11)
    _, y = lora_group(x, [first, second], path="triton")
    dy = torch.randn_like(y)
    dx, da = torch.autograd.grad(y, (x, second.a_RK), dy)
    right = exact(x, second, drawn_mask(x, second, 1), dy)
    assert error(dx, right["dx"]) <= 1e-6
    assert error(da, right["da"]) <= 2e-6


@pytest.mark.parametrize("wanted", ["x", "a", "b"])
def test_what_nobody_wants_is_not_computed(wanted: str) -> None:
    x, member = make(20, 32, 16, 4, torch.float32, 0.5)
    tensors = {"x": x, "a": member.a_RK, "b": member.b_NR}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == wanted)
    torch.manual_seed(11)
    (y,) = lora_group(x, [member], path="triton")
    dy = torch.randn_like(y)
    (got,) = torch.autograd.grad(y, (tensors[wanted],), dy)
    assert error(got, exact(x, member, drawn_mask(x, member), dy)[f"d{wanted}"]) <= 2e-6


def test_equal_runs_give_equal_bits_and_other_seeds_do_not() -> None:
    x, member = make(70, 96, 40, 8, torch.float16, 0.2)
    dy = torch.randn(70, 40).half()
    first, second = run(x, member, dy, "triton"), run(x, member, dy, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(12)
    assert not torch.equal(lora_group(x, [member], path="triton")[0].detach(), first["y"])


def test_activation_checkpointing_repeats_the_mask() -> None:
    x, member = make(40, 32, 24, 4, torch.float32, 0.4)
    dy = torch.randn(40, 24)
    plain = run(x, member, dy, "triton")
    torch.manual_seed(11)
    y = torch.utils.checkpoint.checkpoint(lambda x: lora_group(x, [member], path="triton")[0], x, use_reentrant=False)
    for name, got in zip(("dx", "da", "db"), torch.autograd.grad(y, (x, member.a_RK, member.b_NR), dy), strict=True):
        assert torch.equal(got, plain[name])


@settings(max_examples=examples(10, 100), deadline=None)
@given(
    rows=st.integers(1, 20), columns=st.integers(1, 70), p16=st.sampled_from([0, 1, 3277, 32768, 65535, 65536]),
    seed=st.integers(0, 2**63 - 1), member=st.integers(0, 2),
)  # fmt: skip
def test_the_kernel_s_mask_equals_the_definition_bit_for_bit(
    rows: int, columns: int, p16: int, seed: int, member: int
) -> None:
    x = torch.ones(rows, columns)
    # an identity for A reads the mask out of K1; the members before it draw their own
    eye = Member(torch.zeros(1, columns), None, torch.eye(columns), torch.zeros(1, columns), 1.0, p16 / 65536)
    s = down(x, [eye] * (member + 1), torch.tensor([seed]), Tile(16, 32))[0][member]
    expected = keep_mask(seed, rows, columns, p16, member) * eye.factor
    torch.testing.assert_close(s[:, :columns], expected.float())


def test_partials_are_summed_over_padding_and_planes() -> None:
    part = torch.randn(5, 9, 16)
    out = torch.empty(7, 12)
    torch.testing.assert_close(reduce(part, out, 2.0, Tile(1, 16)), 2.0 * part[:, :7, :12].sum(0))


def test_rows_apart_in_memory_are_read_with_their_stride() -> None:
    x, member = make(30, 48, 24, 4, torch.float32, 0.0)
    wide = torch.zeros(30, 96)
    wide[:, :48] = x.detach()
    view = wide[:, :48].requires_grad_()
    dy = torch.randn(30, 48)[:, ::2]
    (y,) = lora_group(view, [member], path="triton")
    right = exact(x, member, None, dy)
    assert error(y.detach(), right["y"]) <= 1e-6
    assert error(torch.autograd.grad(y, view, dy)[0], right["dx"]) <= 1e-6
