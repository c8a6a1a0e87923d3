"""The LoRA kernels compiled: bf16, bounds and races, on a GPU or under ttsem; several small programs a launch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tercet_kernels.lora import Member, launch, lora_reference
from tercet_kernels.lora.launch import backward_down, backward_up, down, reduce, up, up_fused
from tercet_kernels.lora.tiles import Tile
from tercet_kernels.philox import keep_mask, quantise

SMALL = Tile(rows=16, columns=16, depth=16)
# relative Frobenius error: bf16 keeps 8 bits, so one rounding is at most 2^-9, and s and ds are rounded once more
BARS = {torch.float32: 2e-6, torch.bfloat16: 6e-3}  # fp16 runs in the interpreter
SEED = 2**40 + 12345


def assert_near(got: Tensor, right: Tensor, bar: float) -> None:
    got = got.double().cpu()
    assert torch.isfinite(got).all()
    assert float((got - right).norm() / right.norm()) <= bar


@pytest.mark.parametrize("dtype", list(BARS), ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("m", "k", "n", "r"), [(33, 47, 35, 5), (16, 32, 48, 16)])
def test_every_launch_is_near_the_definition(
    m: int,
    k: int,
    n: int,
    r: int,
    dropout: float,
    dtype: torch.dtype,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(m + r)
    x, weight, bias, dy = (
        torch.randn(*shape, generator=generator).to(dtype) for shape in ((m, k), (n, k), (n,), (m, n))
    )
    a, b = torch.randn(r, k, generator=generator), torch.randn(n, r, generator=generator)  # fp32 beside any base

    keep = keep_mask(SEED, m, k, quantise(dropout)) if dropout else None
    x64, a64, b64 = (tensor.to(dtype).double().requires_grad_() for tensor in (x, a, b))
    y64 = lora_reference(x64, Member(weight.double(), bias.double(), a64, b64, 1.5, dropout), keep)
    dx64, da64, db64 = torch.autograd.grad(y64, (x64, a64, b64), dy.double())

    x, dy, seed = x.to(device), dy.to(device), torch.tensor([SEED], device=device)
    member = Member(weight.to(device), bias.to(device), a.to(device), b.to(device), 1.5, dropout)
    bar = BARS[dtype]
    (s,), masks = down(x, [member], seed, SMALL)
    monkeypatch.setattr(launch, "prefers_fused_gemm", never)
    assert_near(up(x, s, member, SMALL), y64.detach(), bar)
    assert_near(up_fused(x, s, member, SMALL), y64.detach(), bar)
    ds, db = backward_up(dy, s, member, wants_b=True, tile=SMALL)
    assert db is not None
    assert_near(db, db64, bar)
    dx, (da,) = backward_down(x, [ds], [member], masks, seed, wants_x=True, indices=[0], tile=SMALL)
    assert dx is not None
    assert da is not None
    assert_near(dx.addmm_(dy, member.weight_NK), dx64, bar)
    assert_near(da, da64, bar)


def never(_: Tensor) -> bool:
    """Keep `up` from the fused GEMM, which has a test of its own."""
    return False


def positive(*shape: int) -> Tensor:
    """Draw bf16 numbers of one sign, so that a running sum grows and each rounding of it shows."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def test_sums_over_k_are_kept_in_fp32(device: torch.device) -> None:
    """64 blocks of K, each of which would round a bf16 sum; one rounding of the result is half as much as the bar."""
    x, a, weight = positive(16, 1024), positive(17, 1024)[1:], positive(18, 1024)[2:]
    member = Member(weight.to(device), None, a.to(device), torch.zeros(16, 16).to(device))
    (s,), _ = down(x.to(device), [member], None, SMALL)
    assert_near(s, x.double() @ a.double().T, 3e-3)
    assert_near(up_fused(x.to(device), s, member, SMALL), x.double() @ weight.double().T, 3e-3)


def test_the_small_term_and_the_bias_are_rounded_once(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that takes most of s B^T away: a bf16 rounding before it would leave an error of 2% of the rest."""
    s, b, x = positive(32, 16), positive(33, 16)[1:].float(), positive(34, 16)[2:]
    small = s.double() @ b.double().T
    bias = -small.mean(0).bfloat16()
    member = Member(torch.zeros(32, 16).bfloat16().to(device), bias.to(device), torch.zeros(16, 16), b.to(device))
    x, s, right = x.to(device), s.to(device), small + bias.double()
    assert_near(up(x, s, member), right, 3e-3)  # bf16 and a short K: K2 on a GPU of compute capability 8.0 or 9.0
    assert_near(up_fused(x, s, member, SMALL), right, 3e-3)
    monkeypatch.setattr(launch, "prefers_fused_gemm", never)
    assert_near(up(x, s, member, SMALL), right, 3e-3)


def test_sums_over_rows_are_kept_in_fp32(device: torch.device) -> None:
    """dB and dA come back in fp32; a bf16 rounding anywhere on the way would be a hundred times the bar."""
    x, s, dy, ds = positive(64, 16), positive(65, 16)[1:], positive(66, 16)[2:], positive(67, 16)[3:]
    member = Member(torch.zeros(16, 16), None, torch.zeros(16, 16).to(device), torch.zeros(16, 16).to(device))
    _, db = backward_up(dy.to(device), s.to(device), member, wants_b=True, tile=SMALL)
    _, (da,) = backward_down(
        x.to(device), [ds.to(device)], [member], [], None, wants_x=False, indices=[0], tile=SMALL
    )  # fmt: skip
    assert db is not None
    assert da is not None
    assert_near(db, dy.double().T @ s.double(), 1e-5)
    assert_near(da, ds.double().T @ x.double(), 1e-5)


def test_partials_of_many_programs_are_summed_in_fp32(device: torch.device) -> None:
    """64 planes, each of which would round a bf16 sum, into a corner that six programs share."""
    part = positive(64, 9, 16).float()
    got = reduce(part.to(device), torch.empty(7, 12, dtype=torch.bfloat16, device=device), 1.0, Tile(1, 16))
    assert_near(got, part[:, :7, :12].double().sum(0), 3e-3)
