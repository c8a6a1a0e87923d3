"""What PEFT lets a model do, a fused model does too; what the kernels don't cover runs in PEFT and says so."""

from __future__ import annotations

import copy
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.kernels.peft.building import WIDTH, Model, adapted, answer, assert_same, batch, draw_factors
from torch import nn

from tercet_kernels.peft import explain, fuse

TOLERANCE = 1e-5


def second_adapter(model: Model, **config: Any) -> None:
    from peft import LoraConfig

    model.add_adapter("second", LoraConfig(target_modules=["q_proj", "v_proj"], r=3, **config))
    draw_factors(model)


def reasons(model: Model) -> set[str]:
    return {row.reason for row in explain(model) if row.path == "peft"}


def parts(model: Model) -> dict[str, nn.Module]:
    layer = model.get_submodule("base_model.model.first.q_proj")
    return {
        "base": layer.base_layer,
        "A": layer.lora_A["default"],
        "B": layer.lora_B["default"],
        "dropout": layer.lora_dropout["default"],
    }


def disable(model: Model) -> None:
    model.base_model.disable_adapter_layers()


def activate_two(model: Model) -> None:
    second_adapter(model)
    model.base_model.set_adapter(["default", "second"])


def scale(model: Model) -> None:
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.25)


def merge_and_unmerge(model: Model) -> None:
    model.merge_adapter()
    model.unmerge_adapter()


CHANGES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "disabled": (disable, "not covered: adapters are disabled"),
    "merged": (lambda model: model.merge_adapter(), "not covered: the adapter is merged"),
    "merged and unmerged": (merge_and_unmerge, ""),
    "two active": (activate_two, "not covered: 2 active adapters"),
    "another added": (second_adapter, ""),
    "scaled": (scale, ""),
    "evaluating": (lambda model: model.eval(), ""),
}


@pytest.mark.parametrize("fused_first", [True, False], ids=["fused, then changed", "changed, then fused"])
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_of_state_is_followed(change: str, fused_first: bool) -> None:
    plain = adapted(r=4)
    fused, x = copy.deepcopy(plain), batch()
    act, reason = CHANGES[change]
    if fused_first:
        fuse(fused)
    torch.manual_seed(1)
    act(plain)
    torch.manual_seed(1)
    act(fused)
    if not fused_first:
        fuse(fused)
    assert_same(answer(fused, x), answer(plain, x), TOLERANCE)
    assert reasons(fused) == ({reason} if reason else set())


def test_switching_adapters_back_and_forth_is_followed() -> None:
    plain = adapted(r=4)
    second_adapter(plain)
    fused, x = copy.deepcopy(plain), batch()
    fuse(fused)
    for name in ("second", "default", "second"):
        plain.set_adapter(name)
        fused.set_adapter(name)
        assert_same(answer(fused, x), answer(plain, x), TOLERANCE)
    with plain.disable_adapter(), fused.disable_adapter():
        assert torch.equal(fused(x), plain(x))


def test_peft_fills_and_empties_the_cache_of_dora() -> None:
    from peft.helpers import DoraCaching

    model, x = adapted(r=4, use_dora=True).eval(), batch()
    fuse(model)
    expected = model(x)
    caches = [module._dora_cache for module in model.modules() if hasattr(module, "_dora_cache")]
    with DoraCaching():
        assert reasons(model) == {"not covered: DoRA's norm is cached"}
        torch.testing.assert_close(model(x), expected)
        assert caches
        assert all(caches)
    draw_factors(model)  # a norm that stayed in the cache would be of the factors before
    fresh = model(x)
    assert not any(caches)
    assert reasons(model) == set()
    torch.testing.assert_close(model(x), fresh)


def test_mixed_adapter_names_run_in_peft() -> None:
    model = adapted(r=4)
    second_adapter(model)
    model.eval()
    x, names = batch(), ["default", "second", "__base__"]
    expected = model(x, adapter_names=names)
    fuse(model)
    assert torch.equal(model(x, adapter_names=names), expected)


@pytest.mark.parametrize("part", ["base", "A", "B", "dropout"])
@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
def test_a_hook_inside_a_layer_still_runs(part: str, register: str) -> None:
    model, calls = adapted(r=4, lora_dropout=0.1), []
    fuse(model)
    getattr(parts(model)[part], register)(lambda *_: calls.append(part))
    answer(model, batch())
    assert calls
    assert reasons(model) == {"not covered: a hook or a forward of its own inside the layer"}


def test_a_hook_on_the_layer_itself_keeps_it_fused() -> None:
    model, calls = adapted(r=4), []
    fuse(model)
    model.get_submodule("base_model.model.first.q_proj").register_forward_hook(lambda *_: calls.append(1))
    answer(model, batch())
    assert calls
    assert reasons(model) == set()


def test_what_has_no_fused_path_runs_in_peft_and_says_why() -> None:
    base = nn.Sequential(
        nn.Embedding(9, WIDTH), nn.Conv1d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3), nn.Linear(5, 5)
    )
    model = adapted(base, r=4, targets=["0", "1", "2", "3"], lora_bias=False)
    assert [row.path for row in explain(model)] == ["peft"] * 4
    assert fuse(model) == 1
    told = [row.reason for row in explain(model)]
    assert told[:2] == ["not covered: a lora.Embedding", "not covered: a lora.Conv1d"]
    assert told[2].startswith("not covered: a convolution that isn't 1x1")
    assert str(explain(model)).splitlines()[3].startswith("base_model.model.3: torch: ")


def test_a_bias_beside_b_and_a_parametrised_weight_run_in_peft() -> None:
    biased = adapted(r=4, lora_bias=True, targets=["q_proj"])
    fuse(biased)
    assert reasons(biased) == {"not covered: lora_bias"}

    x, plain = batch(), adapted(r=4)
    torch.nn.utils.parametrizations.weight_norm(parts(plain)["base"])
    parts(plain)["base"].requires_grad_(False)
    expected = answer(plain, x)
    fuse(plain)
    assert_same(answer(plain, x), expected, TOLERANCE)
    assert reasons(plain) == {"not covered: a weight that is no plain parameter"}


def test_x_of_another_dtype_meets_pefts_own_error() -> None:
    model = adapted(r=4)
    fuse(model)
    with pytest.raises(RuntimeError, match="dtype"):
        model(batch().double())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_is_fused_and_apart_from_its_model(copied: Callable[[Model], Model]) -> None:
    model, x = adapted(r=4), batch()
    fuse(model)
    expected = answer(model, x)
    twin = copied(model)
    assert_same(answer(twin, x), expected, 0.0)
    assert [row.group for row in explain(twin)] == [row.group for row in explain(model)]
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert_same(answer(twin, x), expected, 0.0)


def test_functional_parameters_are_used() -> None:
    model, x = adapted(r=4), batch()
    fuse(model)
    doubled = {name: value.detach() * 2 for name, value in model.named_parameters() if "lora_B" in name}
    got = torch.func.functional_call(model, doubled, (x,))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in doubled:
                value.mul_(2)
    torch.testing.assert_close(got, model(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own jvp rules
def test_forward_mode_differentiation_runs_in_peft() -> None:
    from torch.autograd import forward_ad

    model, x = adapted(r=4), batch()

    def slope() -> Any:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x)))).tangent

    expected = slope()
    fuse(model)
    assert torch.equal(slope(), expected)


def test_a_torchaudio_that_cannot_load_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "peft.tuners.lora.layer", Broken("peft.tuners.lora.layer"))
    with pytest.raises(ImportError, match=r"run: python tools/fix_torchaudio\.py; elsewhere remove torchaudio/lib"):
        fuse(nn.Linear(2, 2))
