"""SpecAugment (arXiv:1904.08779): bands and moments of a log-mel window that the model has to do without.

Shapes: M mels, F frames of 10 ms. What is masked holds 0, as in transformers' own SpecAugment for Whisper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tercet.compat import find_torchaudio
from tercet.errors import MissingExtra

if TYPE_CHECKING:
    import torch

NUM_BANDS, MELS = 2, 15  # of Whisper's 80 or 128 mels
FRAMES_PER_MOMENT, FRAMES = 500, 30  # one moment per 5 s, at most 0.3 s: a term of half a second is never gone
LARGEST_SHARE = 0.1  # of a short window
MEL_AXIS, FRAME_AXIS = 1, 2


def require_torchaudio() -> Any:
    """Return `torchaudio.functional`.

    Raises:
        MissingExtra: torchaudio is absent, or built for another torch.
    """
    functional = find_torchaudio()
    if functional is None:
        raise MissingExtra(
            "modalities.audio.training.spec_augment: true needs 'torchaudio'; run: pip install 'tercet[coqui]'"
        )
    return functional


def mask(features_MF: torch.Tensor, num_frames: int, seed: int) -> torch.Tensor:
    """Mask bands and moments of the first `num_frames`, those that hold sound; torch's own random state stays."""
    import torch

    functional = require_torchaudio()
    masked_1MF = features_MF[None, :, :num_frames]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(NUM_BANDS):
            masked_1MF = functional.mask_along_axis(masked_1MF, MELS, 0.0, MEL_AXIS)
        for _ in range(max(1, num_frames // FRAMES_PER_MOMENT)):
            masked_1MF = functional.mask_along_axis(masked_1MF, FRAMES, 0.0, FRAME_AXIS, p=LARGEST_SHARE)
    return torch.cat([masked_1MF[0], features_MF[:, num_frames:]], dim=1)
