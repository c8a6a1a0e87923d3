"""A fused model gives PEFT's outputs, gradients, merged weights and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kernels.peft.building import WIDTH, OneMask, adapted, answer, assert_same, batch
from torch import nn

from tercet_kernels.peft import explain, fuse, unfuse

TIGHT = {torch.float32: 1e-5, torch.float64: 1e-13}  # sums in another order, two attentions deep: 4e-6 was seen in fp32
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "lora_alpha": 4},
    "dora": {"use_dora": True},
}


def covered(model: nn.Module) -> bool:
    return {row.path for row in explain(model)} <= {"torch", "triton"}


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "alone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("rank", [1, 4, 8, 100, 256])
def test_outputs_and_all_gradients_are_pefts(rank: int, kind: str, dtype: torch.dtype, groups: bool) -> None:
    model, x = adapted(dtype=dtype, r=rank, **({"lora_alpha": rank} | KINDS[kind])), batch(dtype=dtype)
    expected = answer(model, x)
    assert fuse(model, groups=groups) == 9
    assert covered(model)
    assert_same(answer(model, x), expected, TIGHT[dtype])


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "alone"])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dropout", [0.05, 0.5])
def test_with_one_mask_for_both_the_dropout_is_pefts(
    kind: str, dropout: float, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = adapted(dtype=torch.float64, r=4, lora_dropout=dropout, **KINDS[kind]), batch(dtype=torch.float64)
    mask = OneMask(model, monkeypatch.setattr)
    mask.peft()
    expected = answer(model, x)
    mask.ours()
    fuse(model, groups=groups)
    assert covered(model)
    # the rate is rounded to 1/65536 on both sides alike
    assert_same(answer(model, x), expected, 1e-13)


@pytest.mark.parametrize("kind", list(KINDS))
def test_evaluation_drops_nothing(kind: str) -> None:
    model, x = adapted(r=4, lora_dropout=0.5, **KINDS[kind]).eval(), batch()
    expected = answer(model, x)
    fuse(model)
    assert covered(model)
    assert_same(answer(model, x), expected, TIGHT[torch.float32])


@pytest.mark.parametrize("autocast", [True, False])
def test_fp32_factors_beside_a_bf16_base_stay_within_roundings_of_bf16(autocast: bool) -> None:
    model, x = adapted(r=4), batch()
    for name, value in model.named_parameters():
        if "lora_" not in name and not autocast:
            value.data = value.data.bfloat16()
    x = x if autocast else x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = answer(model, x)
        fuse(model)
        assert covered(model)
        got = answer(model, x)
    # five layers deep, and each rounds x, s and y in one direction or the other: 11 roundings of 2^-9 were seen
    assert_same(got, expected, 16 * 2**-9)


def test_the_interpreted_kernels_give_pefts_answer_too() -> None:
    model, x = adapted(r=4), batch()
    expected = answer(model, x)
    fuse(model, path="triton")
    assert {row.path for row in explain(model)} == {"triton"}
    assert_same(answer(model, x), expected, 1e-5)


def test_a_trained_base_gets_pefts_gradients() -> None:
    model, x = adapted(r=4), batch()
    model.requires_grad_(True)
    expected = answer(model, x)
    fuse(model)
    assert_same(answer(model, x), expected, TIGHT[torch.float32])


@pytest.mark.parametrize("shape", [(1, WIDTH, 3, 5), (2, WIDTH, 1, 1), (WIDTH, 3, 5)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_convolution_keeps_the_memory_format(shape: tuple[int, ...], kind: str, channels_last: bool) -> None:
    model = adapted(nn.Sequential(nn.Conv2d(WIDTH, 7, 1)), r=4, targets=["0"], **KINDS[kind])
    x = torch.randn(shape)
    if kind == "dora" and x.ndim == 3:
        pytest.skip("PEFT's own DoRA takes batches alone")
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    before = model(x)
    fuse(model)
    after = model(x)
    torch.testing.assert_close(after, before)
    assert after.is_contiguous() == before.is_contiguous()
    if x.ndim == 4:
        formats = [y.is_contiguous(memory_format=torch.channels_last) for y in (before, after)]
        assert formats[0] == formats[1]


def test_merged_weights_and_saved_files_are_pefts(tmp_path: Path) -> None:
    plain = adapted(r=4, use_dora=True)
    fused = copy.deepcopy(plain)
    fuse(fused)
    files = []
    for name, model in (("plain", plain), ("fused", fused)):
        model.save_pretrained(tmp_path / name)
        files.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert list(fused.state_dict()) == list(plain.state_dict())
    weights = [model.merge_and_unload().state_dict() for model in (plain, fused)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_a_fused_adapter_ends_where_peft_ends(tmp_path: Path) -> None:
    from peft import PeftModel

    start, x = adapted(r=4), batch()
    ends = []
    for fused in (False, True):
        model = copy.deepcopy(start)
        if fused:
            fuse(model)
        optimiser = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.001)
        for _ in range(5):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
        model.save_pretrained(tmp_path / str(fused))
        torch.manual_seed(0)
        base: Any = copy.deepcopy(start).unload()
        ends.append(PeftModel.from_pretrained(base, tmp_path / str(fused))(x))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_fuse_and_unfuse_are_idempotent_and_undo_each_other() -> None:
    model, x = adapted(r=4), batch()
    types = [type(module) for module in model.modules()]
    before = model(x)
    assert fuse(model) == fuse(model) == 9
    assert unfuse(model) == 9
    assert unfuse(model) == 0
    assert [type(module) for module in model.modules()] == types
    assert not any("tercet_place" in vars(module) for module in model.modules())
    assert torch.equal(model(x), before)


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path is 'cuda'; choose from auto, torch, triton"):
        fuse(adapted(r=4), path="cuda")
