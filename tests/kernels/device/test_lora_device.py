"""The LoRA kernels compiled: bf16, bounds and races, on a GPU or under ttsem; several small programs a launch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tercet_kernels.lora import Member, lora_reference
from tercet_kernels.lora.launch import backward_down, backward_up, down, up, up_fused
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
    m: int, k: int, n: int, r: int, dropout: float, dtype: torch.dtype, device: torch.device
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


def test_sums_over_k_are_kept_in_fp32(device: torch.device) -> None:
    """64 blocks of K, each of which would round a bf16 sum; one rounding of the result is half as much as the bar."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(16, 1024, generator=generator).bfloat16()  # positive, so that a running sum is large
    a = torch.rand(16, 1024, generator=generator).bfloat16()
    member = Member(torch.zeros(16, 1024).bfloat16().to(device), None, a.to(device), torch.zeros(16, 16).to(device))
    (s,), _ = down(x.to(device), [member], None, SMALL)
    assert_near(s, x.double() @ a.double().T, 3e-3)
