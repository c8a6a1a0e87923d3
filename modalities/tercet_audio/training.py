"""What a recipe may say about training on speech: `modalities.audio.training`. Defaults: docs/whisper-lora.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tercet.recipe import Section

Share = Annotated[float, Field(ge=0, le=1)]


class SpeechTraining(Section):
    """How clips become Whisper's 30-second windows, and what keeps the model's ordinary English."""

    variants: int = Field(3, ge=1, description="differently augmented copies of every clip")
    short_windows: Share = Field(0.3, description="share of windows that hold one to three clips instead of 30 s full")
    timestamps: Share = Field(
        0.0, description="share of windows that are learned with each clip's times, as whisper.transcribe decodes"
    )
    speeds: tuple[float, float] = Field((0.86, 1.16), description="range of the resampling that makes new voices")
    telephone_fraction: Share = Field(0.25, description="share of clips passed through a telephone line")
    tone_fraction: Share = Field(0.25, description="share of clips with a changed tone")
    noise_fraction: Share = Field(0.6, description="share of clips with white noise at 10-35 dB")
    room_fraction: Share = Field(0.0, description="share of clips heard in a synthetic room, RT60 0.15-0.6 s")
    spec_augment: bool = Field(
        default=False,
        description="mask bands and moments of the clips' log-mel windows (SpecAugment); needs torchaudio",
    )
    distil: float = Field(2.0, ge=0, description="weight of staying close to the base's own answers on general speech")
