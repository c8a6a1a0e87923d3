"""What the image plug-in can say about this machine."""

from __future__ import annotations

from collections.abc import Iterator

import PIL

from tercet.modality import Check
from tercet_image.recipe import ImageRecipe


def checks(section: ImageRecipe | None) -> Iterator[Check]:
    """Check the renderer; it is the only generator, and its output is free."""
    del section
    yield Check(
        "image renderer", passed=True, detail=f"Pillow {PIL.__version__}", licence="Apache-2.0", output_terms="free"
    )
