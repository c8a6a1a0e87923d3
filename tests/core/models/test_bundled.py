"""A model that a plug-in carries in its own package, by name."""

import dataclasses

import pytest

from tercet import registry
from tercet.errors import ModelError, UsageError
from tercet.modality import Modality
from tercet.models import parse_reference, resolve


@pytest.fixture
def carried(tmp_path, monkeypatch):
    package = tmp_path / "carrying"
    (package / "models/small").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a model needs no code of its plug-in')\n")
    (package / "models/small/model.safetensors").write_bytes(b"weights")
    (package / "models/small/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    models = {"small": "carrying:models/small", "gone": "carrying:models/gone"}
    fields = {field.name: "" for field in dataclasses.fields(Modality)}
    value = Modality(**fields | {"name": "text", "generators": {}, "models": models})  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "modalities", lambda: {"text": value})
    return package / "models/small"


def test_a_bundled_model_is_found_in_its_package_which_is_not_imported(carried):
    found = resolve("bundled:text/small")
    assert (found.path, found.reference, found.licence) == (carried, "bundled:text/small", "apache-2.0")
    assert found.output_terms == "free"
    before = found.digest
    (carried / "model.safetensors").write_bytes(b"others!")
    assert resolve("bundled:text/small").digest != before


def test_auto_takes_the_bundled_model_where_that_is_the_default(carried):
    found = resolve("auto", "bundled:text/small")
    assert (found.reference, found.chosen_because) == ("bundled:text/small", "it comes with the plug-in")


@pytest.mark.parametrize(
    ("reference", "error", "named"),
    [
        ("bundled:text/other", ModelError, "carries no such model; it carries: bundled:text/small"),
        ("bundled:text/gone", ModelError, "carrying has no folder models/gone; install tercet again"),
        ("bundled:nobody/small", UsageError, "modality 'nobody' is not installed"),
        ("bundled:small", ModelError, "unknown form; write .*bundled:modality/name"),
        ("bundled:../small", ModelError, "unknown form"),
    ],
)
def test_what_is_not_bundled_is_named(carried, reference, error, named):
    with pytest.raises(error, match=named):
        resolve(reference)


def test_the_form_is_spelt_back():
    assert str(parse_reference("bundled:image/scenes-vlm")) == "bundled:image/scenes-vlm"
