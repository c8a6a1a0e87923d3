"""What a run holds out to be judged by: pictures whose first object is of a colour-shape pair never trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet.errors import UsageError
from tercet.records import Record
from tercet.store.shards import read_records
from tercet_image.plan import HELD_OUT
from tercet_image.recipe import ImageRecipe


def held_out_records(section: ImageRecipe, run_dir: Path) -> list[Record]:
    """Read the held-out pictures.

    Raises:
        UsageError: there is none, so that nothing could be judged.
    """
    found = list(read_records(run_dir, "image", HELD_OUT))
    if not found:
        key = "pictures" if section.test_fraction else "test_fraction"
        raise UsageError(
            f"modalities.image.{key}: {getattr(section, key):g} gives no held-out picture to judge by; raise it"
        )
    return found


def pair_of(payload: Mapping[str, Any]) -> str:
    """Name the pair that a picture is held out for, its first object's: `teal star`.

    It is the source of what is asked about the picture. Pictures of one pair go wrong together, and pairs are what an
    adapter must carry over to, so they are what is resampled.
    """
    first = json.loads(payload["scene"])["objects"][0]
    return f"{first['colour']} {first['shape']}"
