"""What a recipe says about speech: how many clips, by which engines, what is held out, behind which gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tercet.recipe import Section
from tercet_audio.training import SpeechTraining

MAX_CLIPS = 100_000_000
Share = Annotated[float, Field(ge=0, le=1)]
Settings = dict[str, str | int | float | bool]
Split = Literal["train", "replay", "general", "held_out_phrases", "held_out_engine", "held_out_terms"]


class EngineUse(Section):
    """One speech engine's part: its share of the training clips, which of its voices, and settings of its own."""

    share: float = Field(1.0, gt=0, description="its weight against the other engines'")
    voices: tuple[str, ...] = Field((), description="names as `tercet audio voices` lists them; empty: its best few")
    settings: Settings = Field(default_factory=dict, description="for example coqui's model_path and config_path")


class HeldOut(Section):
    """What is never trained on, and how many clips measure each: sentences, terms, and one whole speech engine."""

    phrases: Share = Field(0.2, description="share of the carrier phrases")
    terms: Share = Field(0.2, description="share of the terms")
    engine: str | None = Field("pico", description="no training clip comes from it; null: none is held out")
    phrase_clips: int = Field(60, ge=0, le=MAX_CLIPS, description="held-out phrases, trained terms and engines")
    engine_clips: int = Field(60, ge=0, le=MAX_CLIPS, description="the held-out engine, trained terms")
    term_clips: int = Field(40, ge=0, le=MAX_CLIPS, description="held-out terms and phrases, trained engines")


class General(Section):
    """Ordinary English without the terms: what shows forgetting, and what training keeps the base's answers on."""

    clips: int = Field(300, ge=0, le=MAX_CLIPS, description="sentences by a voice never trained on; measured only")
    voice: str | None = Field(None, description="engine:name; default: the held-out engine's last voice")
    replay_clips: int = Field(120, ge=0, le=MAX_CLIPS, description="other sentences by trained voices; trained on")


class DurationGate(Section):
    """Seconds a clip may last."""

    min_seconds: float = Field(0.6, gt=0)
    max_seconds: float = Field(20.0, gt=0, le=30)

    @model_validator(mode="after")
    def _in_order(self) -> DurationGate:
        if self.min_seconds >= self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds} is not below max_seconds {self.max_seconds}")
        return self


class SilenceGate(Section):
    """Silence: loudness over 20 ms frames, against the clip's loudest frame."""

    below_db: float = Field(40.0, gt=0, description="a frame this far below the loudest is silent")
    max_share: Share = Field(0.5, description="of silent frames")
    max_edge_seconds: float = Field(1.0, gt=0, description="silence before the first or after the last sound")
    max_gap_seconds: float = Field(1.5, gt=0, description="silence between two sounds")
    min_peak: float = Field(0.02, gt=0, le=1, description="a quieter clip is rejected")


class ClippingGate(Section):
    """Flat peaks: loudness is the same for all clips, and a clipped one crowds under its own peak."""

    max_share: Share = Field(0.15, description="of samples in runs of three or more near the peak")
    at_level: float = Field(0.5, gt=0, le=1, description="of the clip's own peak: from here on counts as near it")


class CharacterRateGate(Section):
    """Written characters per second of sound, divided by the asked pace: an engine that skips or stutters."""

    min_rate: float = Field(6.0, gt=0)
    max_rate: float = Field(25.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> CharacterRateGate:
        if self.min_rate >= self.max_rate:
            raise ValueError(f"min_rate {self.min_rate} is not below max_rate {self.max_rate}")
        return self


class RoundTripGate(Section):
    """A listener that isn't the model being trained hears the clip; the terms are masked, since it can't spell them."""

    judge: str = Field("auto", description="hf:owner/name, path:./dir, pkg:distribution, or auto (Whisper base)")
    max_wer: Share = Field(0.10, description="word error rate off the terms")
    calibration_sentences: int = Field(50, ge=0, description="general sentences that a voice without a figure reads")
    max_calibrated_wer: Share = Field(0.35, description="a weak voice's own limit, its median + max_wer, ends here")
    splits: tuple[Split, ...] = Field(("train",), description="what it judges; measured sets pass the others alone")


class AudioGates(Section):
    """The gates of a clip; null switches one off."""

    duration: DurationGate | None = DurationGate()
    silence: SilenceGate | None = SilenceGate()
    clipping: ClippingGate | None = ClippingGate()
    character_rate: CharacterRateGate | None = CharacterRateGate()
    round_trip: RoundTripGate | None = RoundTripGate()


class AudioRecipe(Section):
    """Speech: the user's terms in carrier phrases, by several speech engines, accents and paces."""

    clips: int = Field(0, ge=0, le=MAX_CLIPS, description="to train on; held-out and general clips come on top")
    engines: dict[str, EngineUse] = Field(
        {"hibari": EngineUse(share=0.7), "espeak": EngineUse(share=0.3)},
        min_length=1,
        description="engine name: its part of the training clips",
    )
    paces: tuple[float, ...] = Field((0.85, 1.0, 1.2), min_length=1, description="1.2 takes about 1/1.2 of the time")
    held_out: HeldOut = HeldOut()
    general: General = General()
    gates: AudioGates = AudioGates()
    training: SpeechTraining = SpeechTraining()

    @field_validator("paces")
    @classmethod
    def _can_be_spoken(cls, paces: tuple[float, ...]) -> tuple[float, ...]:
        for pace in paces:
            if not 0.5 <= pace <= 2:
                raise ValueError(f"pace {pace} is outside 0.5 to 2")
        if len(set(paces)) < len(paces):
            raise ValueError(f"paces {list(paces)}: one stands twice; keep one")
        return paces

    @model_validator(mode="after")
    def _held_out_engine_is_not_trained(self) -> AudioRecipe:
        if self.held_out.engine in self.engines:
            raise ValueError(
                f"held_out.engine {self.held_out.engine!r} is among engines; take it out of one of the two"
            )
        return self
