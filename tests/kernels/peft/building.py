"""Small models with adapters, and one mask for PEFT's dropout and for ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tercet_kernels.lora import Member, eager
from tercet_kernels.philox import inverse_keep

WIDTH = 24
Model = Any  # PEFT has no type information


class Attention(nn.Module):
    """Linears under the names that groups are found by; q, k and v share x."""

    def __init__(self, width: int, heads_share: int = 2) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width // heads_share, bias=False)
        self.v_proj = nn.Linear(width, width // heads_share)
        self.o_proj = nn.Linear(width // heads_share, width)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return x + self.o_proj(torch.tanh(q[..., : k.shape[-1]] + k) * v)


class Net(nn.Module):
    """Two attentions and a 1x1 convolution."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.first, self.second = Attention(width), Attention(width)
        self.pixels = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.first(x))
        rows, columns, width = x.shape
        image = x.transpose(1, 2).reshape(rows, width, columns, 1)
        return x + self.pixels(image).squeeze(3).transpose(1, 2)


def batch(rows: int = 3, columns: int = 5, width: int = WIDTH, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(rows * columns)
    return torch.randn(rows, columns, width, generator=generator).to(dtype)


def adapted(
    base: nn.Module | None = None, *, dtype: torch.dtype = torch.float32, targets: Any = None, **config: Any
) -> Model:
    """Return a PEFT model whose adapter does something: B is drawn, not zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = Net() if base is None else base
    linears = targets or ["q_proj", "k_proj", "v_proj", "o_proj", "pixels"]
    with quiet():
        model = get_peft_model(base, LoraConfig(target_modules=linears, **config))
    draw_factors(model)
    return model.to(dtype)


def draw_factors(model: nn.Module) -> None:
    """Give A and B of every adapter values of a trained adapter's size."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                value.normal_().div_(2 * value[0].numel() ** 0.5)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide that PEFT 0.21 asks transformers 5.23 for a name it will drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def answer(model: Model, x: Tensor) -> dict[str, Tensor]:
    """Return y and every gradient, x's own among them."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    found = {"y": y.detach().clone(), "x": x.grad}
    return found | {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compare by the largest error beside the largest value: an element near 0 is a difference of large terms."""
    assert got.keys() == expected.keys()
    for name, right in expected.items():
        assert got[name].dtype == right.dtype, name
        scale = right.double().abs().max()
        error = (got[name].double() - right.double()).abs().max()
        assert error <= tolerance * scale, f"{name}: {error / scale:.2e} above {tolerance:.0e}"


class FixedDropout(nn.Module):
    """Stand in for PEFT's dropout and apply the mask that the patched draw of ours returns too."""

    def __init__(self, p: float, salt: int) -> None:
        super().__init__()
        self.p, self.salt = p, salt

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows = x.movedim(1, -1) if x.ndim == 4 else x
        keep = keep_of(self.salt, rows.numel(), self.p).view(rows.shape)
        keep = keep.movedim(-1, 1) if x.ndim == 4 else keep
        return x * keep * inverse_keep(self.p)


def keep_of(salt: int, elements: int, p: float) -> Tensor:
    return torch.rand(elements, generator=torch.Generator().manual_seed(salt)) >= p


class OneMask:
    """Both dropouts of a model draw the same mask: `peft()` puts the stand-ins in place, `ours()` takes them out."""

    def __init__(self, model: Model, patch: Callable[..., None]) -> None:
        self.layers = [module for module in model.modules() if hasattr(module, "lora_dropout")]
        self.ours_dropout = [layer.lora_dropout["default"] for layer in self.layers]
        weights = [layer.lora_A["default"].weight for layer in self.layers]
        salts = {weight.data_ptr(): salt for salt, weight in enumerate(weights)}

        def draw(x_MK: Tensor, member: Member, seed: Tensor | None, index: int) -> Tensor:
            if not member.dropout:
                return torch.empty(0, dtype=torch.uint8)
            keep = keep_of(salts[member.a_RK.data_ptr()], x_MK.numel(), member.dropout)
            return torch.from_numpy(np.packbits(keep.numpy(), bitorder="little"))

        patch(eager, "draw_mask", draw)

    def peft(self) -> None:
        for salt, (layer, dropout) in enumerate(zip(self.layers, self.ours_dropout, strict=True)):
            layer.lora_dropout["default"] = FixedDropout(dropout.p, salt).train(layer.training)

    def ours(self) -> None:
        for layer, dropout in zip(self.layers, self.ours_dropout, strict=True):
            layer.lora_dropout["default"] = dropout.train(layer.training)
