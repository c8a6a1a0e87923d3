"""The learner modality, installed for a test, and a run of it that is ready to be trained on."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tercet import registry
from tercet.compat import prepare_torchaudio
from tercet.pipeline.run import run_recipe
from tercet.recipe import Recipe, load_recipe

PLUGIN = Path(__file__).parent / "plugin"
TRAIN = "task: naming, base: 'path:./base', steps: 12, checkpoint_every: 4, micro_batch: 4, adapter: {rank: 2}"


@contextmanager
def installed() -> Iterator[None]:
    """Make the learner modality one of those installed, and peft one of those imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        registry.modalities.cache_clear()
        prepare_torchaudio()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's imports warn in their own ways
            import peft  # noqa: F401
        yield
    sys.modules.pop("tercet_learner", None)
    registry.modalities.cache_clear()


def write_recipe(folder: Path, train: str = TRAIN, more: str = "", name: str = "learn.yaml") -> Recipe:
    """Write a recipe with a base model beside it."""
    from tercet_learner import write_base  # type: ignore[import-not-found]

    write_base(folder / "base")
    path = folder / name
    path.write_text(f"version: 1\nname: learn\nmodalities:\n  learner: {{points: 80}}\ntrain: {{{train}}}\n{more}\n")
    return load_recipe(path)


def make_run(folder: Path) -> Recipe:
    """Make the run of the recipe in `folder`."""
    recipe = write_recipe(folder)
    run_recipe(recipe, workers=0)
    return recipe


def copy_run(source: Path, target: Path) -> Path:
    """Copy a made world."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def in_a_child(work: Callable[[], Any]) -> int:
    """Run `work` in a forked process; return its exit status, negative for the signal that killed it.

    Only for work with one thread of torch: a fork doesn't take the others along.
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
