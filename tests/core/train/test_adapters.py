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

BASE_DIGEST = "b" * 32
CARD = {"base": "pkg:small", "base_digest": BASE_DIGEST, "scale": 0.5}


def small() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 4))


def attached(targets: str = "0") -> Any:
    prepare_torchaudio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's imports warn in their own ways
        model: Any = adapters.attach(small(), Adapter(rank=2), targets)
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
    loaded: Any = adapters.load(small(), folder, BASE_DIGEST)
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
        adapters.load(small(), folder, "c" * 32)
    weights = folder / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptError, match="digest"):
        adapters.load(small(), folder, BASE_DIGEST)
    weights.unlink()
    with pytest.raises(ModelError, match="is missing; train again"):
        adapters.load(small(), folder, BASE_DIGEST)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(ModelError, match="no adapter here"):
        adapters.load(small(), tmp_path, BASE_DIGEST)
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
        adapters.load(small(), folder)


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
