"""The probe modality, installed for these tests alone: its folder carries a dist-info, as a wheel would."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tercet import registry
from tercet.recipe import Recipe, load_recipe
from tercet.registry import modalities

PLUGIN = Path(__file__).parent / "plugin"
WriteRecipe = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))  # for workers
    modalities.cache_clear()
    yield
    sys.modules.pop("tercet_probe", None)
    registry.modalities.cache_clear()


@pytest.fixture
def write_recipe(tmp_path: Path) -> WriteRecipe:
    def write(section: str = "items: 10", name: str = "probe", more: str = "") -> Recipe:
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"version: 1\nname: {name}\nmodalities:\n  probe: {{{section}}}\n{more}\n")
        return load_recipe(path)

    return write
