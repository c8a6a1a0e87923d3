"""The generator `speech`: a planned sentence, spoken by its engine, as a finished clip."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tercet.errors import BackendError
from tercet.modality import Needs, Resources
from tercet.records import Failure, Item, Made, ModelUse
from tercet_audio.augment import RATE, Clip
from tercet_audio.cast import settings_of
from tercet_audio.clip import finish
from tercet_audio.engines import find_voice, ready_engine
from tercet_audio.engines.base import SpeechEngine, Voice
from tercet_audio.payload import encode_flac
from tercet_audio.recipe import AudioRecipe


class Speech:
    """Speaks items; an engine that dies or hangs costs the item that it was speaking, and can be asked again."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.6, model=True)
    batch_size: ClassVar[int] = 16

    def __init__(self, section: AudioRecipe, resources: Resources) -> None:
        self.settings, self.resources = settings_of(section), resources
        self._engines: dict[str, tuple[SpeechEngine, ModelUse]] = {}

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        """Give one clip per item."""
        for item in items:
            try:
                yield self._make(item)
            except BackendError as error:
                yield Failure("generate", type(error).__name__, str(error), error.retryable)

    def _make(self, item: Item) -> Made:
        spec = item.spec
        voice = self._voice(spec["voice"])
        engine, use = self._engine(voice.engine)
        seed = self.resources.seed_for(item, "generate")
        clip = self._speak(engine, spec["spoken"], voice, spec["pace"], seed)
        realised = 1.0
        if spec["pace"] != 1.0:
            # against the same voice's own words at its own pace: what the duration control did, not what was asked
            realised = len(self._speak(engine, spec["spoken"], voice, 1.0, seed)) / max(1, len(clip))
        payload: dict[str, Any] = {
            "audio": encode_flac(clip),
            **{name: spec[name] for name in ("text", "spoken", "term", "phrase", "pace")},
            "voice": voice.id,
            "engine": voice.engine,
            "accent": voice.accent,
            "accent_mechanism": voice.accent_mechanism,
            "accent_verified": voice.accent_verified,
            "realised_pace": round(realised, 4),
            "seconds": round(len(clip) / RATE, 4),
        }
        settings = self.settings.get(voice.engine)
        # kept: a gate that measures this voice must construct the same engine
        return Made(payload, use, {"seed": seed} | ({"engine_settings": dict(settings)} if settings else {}))

    def _speak(self, engine: SpeechEngine, text: str, voice: Voice, pace: float, seed: int) -> Clip:
        said = engine.speak(text, voice.name, pace, seed)
        if not len(said.samples):
            raise BackendError(f"{engine.name}: voice {voice.name!r} gave no sound for {text!r}", retryable=False)
        return finish(said.samples, said.rate)

    def _engine(self, name: str) -> tuple[SpeechEngine, ModelUse]:
        if name not in self._engines:
            made = ready_engine(name, self.settings.get(name))
            self._engines[name] = made, made.use()
        return self._engines[name]

    @functools.cache  # noqa: B019 - one generator lives as long as its worker
    def _voice(self, voice_id: str) -> Voice:
        return find_voice(voice_id, self.settings)
