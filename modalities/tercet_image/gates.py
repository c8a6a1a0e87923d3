"""Gates for pictures: something must be on them, and not what is on another one already."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tercet.modality import Needs, Resources
from tercet.records import Candidate, Verdict
from tercet_image.recipe import BlankGate, NearDuplicatesGate

PATCHES = 8


class Blank:
    """Rejects pictures of one tone: black safety-filter output, failed renders, grey noise without contrast."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 64

    def __init__(self, section: BlankGate, resources: Resources) -> None:
        del resources
        self.section = section

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Judge each picture's spread of tones."""
        return [self._judge(_pixels(candidate)) for candidate in batch]

    def _judge(self, pixels: Any) -> Verdict:
        deviation = float(pixels.std())
        low, high = np.percentile(pixels, [1, 99])
        if deviation < self.section.min_deviation:
            return Verdict("blank", passed=False, score=deviation, threshold=self.section.min_deviation, reason="blank")
        if high - low < self.section.min_contrast:
            contrast = float(high - low)
            return Verdict(
                "blank", passed=False, score=contrast, threshold=self.section.min_contrast, reason="low contrast"
            )
        return Verdict("blank", passed=True, score=deviation, threshold=self.section.min_deviation)


class NearDuplicates:
    """Rejects a picture that looks like an earlier kept one: close difference hash, and no patch far off.

    The hash finds candidates among all earlier pictures at once; the patches decide, since small pictures of few
    shapes share hashes easily.
    """

    def __init__(self, section: NearDuplicatesGate, resources: Resources) -> None:
        del resources
        self.section = section

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        """Judge in plan order; the first of a group of look-alikes stays."""
        hashes: Any = np.zeros((1024, 8), np.uint8)
        patches: Any = np.zeros((1024, PATCHES, PATCHES, 3), np.float32)
        kept = 0
        for candidate in candidates:
            pixels = _pixels(candidate)
            own_hash, own_patches = _difference_hash(pixels), _patches(pixels)
            close = np.flatnonzero(_distances(hashes[:kept], own_hash) <= self.section.max_hash_distance)
            nearest = min((float(np.abs(patches[at] - own_patches).max()) for at in close), default=255.0)
            limit = self.section.max_patch_difference
            if nearest <= limit:
                yield Verdict("near_duplicates", passed=False, score=nearest, threshold=limit, reason="near duplicate")
                continue
            if kept == len(hashes):
                hashes, patches = np.concatenate([hashes, hashes]), np.concatenate([patches, patches])
            hashes[kept], patches[kept] = own_hash, own_patches
            kept += 1
            yield Verdict("near_duplicates", passed=True, score=nearest, threshold=limit)


def _pixels(candidate: Candidate) -> Any:
    with Image.open(io.BytesIO(candidate.payload["image"])) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def _shrink(pixels: Any, wide: int, high: int) -> Any:
    image = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(image.resize((wide, high), Image.Resampling.BOX), np.float32)


def _patches(pixels: Any) -> Any:
    return _shrink(pixels, PATCHES, PATCHES)


def _difference_hash(pixels: Any) -> Any:
    """Pack 64 comparisons of neighbouring patches in a row (dHash)."""
    grey = _shrink(pixels, PATCHES + 1, PATCHES).mean(axis=2)
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def _distances(hashes: Any, own: Any) -> Any:
    return np.unpackbits(np.bitwise_xor(hashes, own), axis=1).sum(axis=1)
