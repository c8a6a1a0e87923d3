"""What both training tasks have in common: their section, the records they train on or watch, replay and saving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.files import disk_error, fsync_folder
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.store.shards import read_records
from tercet.train.mixing import is_watched, training_records
from tercet.train.task import Defaults
from tercet_image.colour import COLOURS, difference
from tercet_image.general_scenes import REPLAYED, general_payloads
from tercet_image.recipe import MIN_COLOUR_DIFFERENCE, ImageRecipe


class PictureTask:
    """A task that trains on a run's pictures."""

    defaults: Defaults

    def __init__(self, recipe: Recipe) -> None:
        section = getattr(recipe.sections.modalities, "image", None)
        if section is None:
            raise UsageError(
                f"{recipe.path}: train.task {recipe.sections.train.task} needs pictures; fill modalities.image"
            )
        self.recipe = recipe
        self.section: ImageRecipe = section
        _check_palette(recipe, section.scene.colours)

    def _trained(self, run_dir: Path) -> list[Record]:
        return training_records(
            read_records(run_dir, "image", "train"),
            self.recipe.sections.train,
            self.recipe.sections.seed,
            lambda record: record.id,
        )

    def _watched(self, run_dir: Path) -> Iterator[Record]:
        sections = self.recipe.sections
        for record in read_records(run_dir, "image", "train"):
            if is_watched(record.id, sections.train.early_stop, sections.seed):
                yield record

    def _replayed(self, num_records: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Draw general scenes as many as replay may take beside so many records."""
        wish = self.recipe.sections.train.replay
        replay = self.defaults.replay if wish is None else wish
        return general_payloads(self.section, REPLAYED, round(num_records * replay / (1 - replay)))


def _check_palette(recipe: Recipe, colours: Mapping[str, str]) -> None:
    """Refuse a colour that general scenes, trained on and judged beside the recipe's own, call by another name."""
    for name, code in colours.items():
        for other, other_code in COLOURS.items():
            apart = difference(code, other_code)
            if name != other and apart < MIN_COLOUR_DIFFERENCE:
                raise UsageError(
                    f"{recipe.path}: modalities.image.scene.colours: {name} {code} looks like {other} {other_code} of "
                    f"the default palette (delta E {apart:.0f}, at least {MIN_COLOUR_DIFFERENCE:.0f} is needed), which "
                    f"the base knows; call it {other}, or change it"
                )


@contextmanager
def written(out: Path) -> Iterator[None]:
    """Make a folder to save a model into, and have all of it on the disk at the end.

    Raises:
        StoreError: `out` can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
        fsync_folder(out)
    except OSError as error:
        raise disk_error(out, error) from error
