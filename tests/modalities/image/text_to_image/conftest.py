"""The task `text-to-image` on a pipeline of random weights, with a finished run: real code, meaningless pixels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tercet.pipeline.run import run_recipe
from tercet.recipe import Adapter, load_recipe
from tercet.train.adapters import attach, trainable
from tercet_image.t2i_parts import parts_of
from tercet_image.text_to_image import TextToImage

RECIPE = """
version: 1
name: brand
seed: 3
modalities:
  image:
    pictures: 40
    size: 64
    test_fraction: 0.2
    captions: [short]
    scene:
      shapes: [circle, square, star]
      colours: {teal: '#008080', mustard: '#c9a227', red: '#e5383b'}
      objects: [1, 2]
      label_share: 0
    training: {steps: 2, caption_dropout: 0}
train:
  task: text-to-image
  base: path:./base
  steps: 3
  micro_batch: 4
  adapter: {rank: 2, dropout: 0}
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory, tiny_pipeline):
    """A recipe's folder with its base and its finished run."""
    folder = tmp_path_factory.mktemp("brand")
    shutil.copytree(tiny_pipeline, folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE)
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.fixture
def task(recipe):
    return TextToImage(recipe)


def adapted(task: TextToImage, root: Path, targets: str | None = None, kernels: str = "peft") -> Any:
    """A base with an adapter that does something."""
    import torch

    wrapped = attach(
        task.load_base(root / "base"), Adapter(rank=2, dropout=0), targets or task.defaults.targets, kernels
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in trainable(wrapped).values():
            value.normal_(std=0.3, generator=generator)
    return wrapped


def with_scheduler(model: Any, **config: Any) -> None:
    pipeline = parts_of(model).pipeline
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **config)
