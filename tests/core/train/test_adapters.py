import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tercet.compat import prepare_torchaudio
from tercet.errors import CorruptError, ModelError
from tercet.recipe import Adapter
from tercet.train import adapters
from tercet.train.loading import load

BASE_DIGEST = "b" * 32
CARD = {"base": "pkg:small", "base_digest": BASE_DIGEST, "scale": 0.5}


def small() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 4))


def attached(targets: str = "0", **how: Any) -> Any:
    prepare_torchaudio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's imports warn in their own ways
        model: Any = adapters.attach(small(), Adapter(rank=2, **how), targets)
    with torch.no_grad():
        for value in adapters.trainable(model).values():
            value.add_(torch.randn(value.shape))
    return model


@pytest.fixture
def x():
    return torch.randn(5, 6)


@pytest.fixture
def saved(tmp_path: Path):
    model = attached().eval()
    adapters.save(model, tmp_path / "adapter", CARD, scale=0.5)
    return model, tmp_path / "adapter"


def lift(folder: Path, x: torch.Tensor) -> Any:
    loaded: Any = load(small(), folder, BASE_DIGEST)
    return loaded.base_model.model[0](x) - small()[0](x)


def test_a_saved_adapter_loads_at_its_scale(saved, x):
    model, folder = saved
    base = small()[0](x)
    torch.testing.assert_close(lift(folder, x), 0.5 * (model.base_model.model[0](x) - base))


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0])
def test_another_scale_is_a_share_of_what_was_trained(saved, x, tmp_path, scale):
    model, folder = saved
    (tmp_path / "scaled").mkdir()
    adapters.rescale(folder, tmp_path / "scaled", scale)
    base = small()[0](x)
    torch.testing.assert_close(lift(tmp_path / "scaled", x), scale * (model.base_model.model[0](x) - base))
    assert adapters.read_card(tmp_path / "scaled")["scale"] == scale


def test_another_base_and_damage_are_refused(saved):
    _, folder = saved
    with pytest.raises(ModelError, match="trained on pkg:small"):
        load(small(), folder, "c" * 32)
    weights = folder / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptError, match="digest"):
        load(small(), folder, BASE_DIGEST)
    weights.unlink()
    with pytest.raises(ModelError, match="is missing; train again"):
        load(small(), folder, BASE_DIGEST)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(ModelError, match="no adapter here"):
        load(small(), tmp_path, BASE_DIGEST)
    (tmp_path / adapters.CARD).write_text("{")
    with pytest.raises(CorruptError, match="not JSON"):
        adapters.read_card(tmp_path)


def test_weights_with_nan_are_refused_even_with_the_right_digest(saved):
    _, folder = saved
    state = load_file(folder / adapters.WEIGHTS)
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, folder / adapters.WEIGHTS)
    digest = hashlib.sha256((folder / adapters.WEIGHTS).read_bytes()).hexdigest()
    (folder / adapters.CARD).write_text(json.dumps(adapters.read_card(folder) | {"weights": digest}))
    with pytest.raises(CorruptError, match="holds NaN or infinity"):
        load(small(), folder)


def test_targets_that_fit_nothing_are_named():
    with pytest.raises(ModelError, match=r"train\.adapter\.targets: 'nothing' fits no module"):
        attached("nothing")


@pytest.mark.parametrize("card", ["[]", "{}", '{"base": "pkg:small", "base_digest": "b"}'])
def test_a_card_without_what_we_need_is_damage(tmp_path, card):
    (tmp_path / adapters.CARD).write_text(card)
    with pytest.raises(CorruptError, match=r"tercet\.json: lacks .*weights; train again"):
        adapters.read_card(tmp_path)
    with pytest.raises(ModelError, match=r"tercet\.json: no adapter's folder"):
        adapters.read_card(tmp_path / adapters.CARD)


@pytest.mark.parametrize("config", [None, b"", b"[]", b"{}"])
def test_a_damaged_configuration_is_found_before_a_model_is_loaded(saved, config):
    _, folder = saved
    assert adapters.rank(folder) == 2
    (folder / adapters.CONFIG).unlink()
    if config is not None:
        (folder / adapters.CONFIG).write_bytes(config)
    with pytest.raises(CorruptError, match=r"adapter_config\.json: not PEFT's configuration"):
        adapters.check(folder, BASE_DIGEST)


def rewritten(folder: Path, change: Any) -> None:
    """Change an adapter's tensors, and let its card vouch for them: what stands in the file is what is checked."""
    state = load_file(folder / adapters.WEIGHTS)
    change(state)
    save_file(state, folder / adapters.WEIGHTS)
    vouch(folder)


def vouch(folder: Path) -> None:
    digest = hashlib.sha256((folder / adapters.WEIGHTS).read_bytes()).hexdigest()
    (folder / adapters.CARD).write_text(json.dumps(adapters.read_card(folder) | {"weights": digest}))


A, B = "base_model.model.0.lora_A.weight", "base_model.model.0.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (lambda state: state.update({"base_model.model.7.lora_A.weight": torch.ones(2, 6)}), ModelError,
         r"1 tensors have no place in the base: base_model\.model\.7"),
        (lambda state: state.pop(B), ModelError, r"1 tensors are missing: .*lora_B"),
        (lambda state: state.update({A: torch.ones(3, 6)}), ModelError,
         r"lora_A\.weight is \[3, 6\], .*make it \[2, 6\]"),
        (lambda state: state.update({B: state[B] * 1000}), CorruptError,
         r"the update of .* is [\d,]+ times its weight"),
    ],
)  # fmt: skip
def test_tensors_without_a_place_a_shape_or_a_measure_are_refused(saved, change, error, named):
    _, folder = saved
    rewritten(folder, change)
    with pytest.raises(error, match=named):
        load(small(), folder)


def test_a_pickle_under_the_name_of_safetensors_is_refused(saved):
    _, folder = saved
    torch.save({A: torch.ones(2, 6)}, folder / adapters.WEIGHTS)
    vouch(folder)
    with pytest.raises(CorruptError, match=r"adapter_model\.safetensors: not safetensors"):
        load(small(), folder)


def test_another_kind_of_adapter_is_named(saved):
    _, folder = saved
    config = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(ModelError, match="peft_type 'IA3'; only LORA"):
        load(small(), folder)


def test_an_adapter_whose_targets_are_elsewhere_is_refused(saved):
    _, folder = saved
    config = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps(config | {"target_modules": "elsewhere"}))
    with pytest.raises(ModelError, match="its targets are no modules of the base"):
        load(small(), folder)


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}])
def test_every_kind_of_adapter_is_saved_and_loads_in_plain_peft(tmp_path, x, kind):
    from peft import PeftModel

    model = attached(**kind).eval()
    with torch.no_grad():
        expected = model(x)
    adapters.save(model, tmp_path, CARD | {"scale": 1.0})
    with torch.no_grad():
        torch.testing.assert_close(load(small(), tmp_path)(x), expected)
        with adapters.quiet_peft():
            torch.testing.assert_close(PeftModel.from_pretrained(small(), str(tmp_path))(x), expected)
    scaling = model.base_model.model[0].scaling["default"]
    assert scaling == pytest.approx(4 / 2**0.5 if kind.get("rslora") else 2)
    assert any("magnitude" in name for name in load_file(tmp_path / adapters.WEIGHTS)) == bool(kind.get("dora"))


def test_fused_layers_save_and_load_as_pefts_own(tmp_path, x):
    prepare_torchaudio()
    torch.manual_seed(0)
    model: Any = adapters.attach(small(), Adapter(rank=2, dropout=0), "0", "fused").eval()
    with torch.no_grad():
        for value in adapters.trainable(model).values():
            value.add_(0.3)
        expected = model(x)
        adapters.save(model, tmp_path, CARD | {"scale": 1.0})
        torch.testing.assert_close(load(small(), tmp_path)(x), expected)


def test_kernels_that_cover_no_layer_are_refused_only_when_asked_for():
    convolution: Any = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    with adapters.quiet_peft():
        adapters.attach(convolution, Adapter(rank=2), "0", "auto")
        with pytest.raises(ModelError, match="train.kernels: fused covers no LoRA layer"):
            adapters.attach(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), Adapter(rank=2), "0", "fused")


def test_activations_are_computed_twice_where_the_base_can():
    with pytest.raises(ModelError, match=r"train\.activation_checkpointing: Sequential can't; set false"):
        adapters.checkpoint_activations(attached())


def test_a_dora_adapter_has_no_scale():
    from tercet.recipe import Train

    with pytest.raises(ValueError, match="lora_scale: a DoRA adapter can't be scaled"):
        Train.model_validate({"task": "x", "adapter": {"dora": True}, "lora_scale": 0.5})
