"""The speech engines that come with tercet, by name."""

from __future__ import annotations

from tercet import registry
from tercet.errors import UsageError
from tercet.modality import Named
from tercet_audio.engines.base import Settings, SpeechEngine, Voice

ENGINES: dict[str, Named] = {
    "hibari": "tercet_audio.engines.hibari:HibariEngine",
    "pico": "tercet_audio.engines.pico:PicoEngine",
    "espeak": "tercet_audio.engines.espeak:EspeakEngine",
    "flite": "tercet_audio.engines.flite:FliteEngine",
    "coqui": "tercet_audio.engines.coqui:CoquiEngine",
}


def engine(name: str, settings: Settings | None = None) -> SpeechEngine:
    """Construct an engine; nothing heavy is loaded until it speaks.

    Raises:
        UsageError: no engine has this name; lists those that exist.
    """
    if name not in ENGINES:
        raise UsageError(f"speech engine {name!r} does not exist; there are: {', '.join(ENGINES)}")
    made: SpeechEngine = registry.load(ENGINES[name], "audio")(settings or {})
    return made


def ready_engine(name: str, settings: Settings | None = None) -> SpeechEngine:
    """Construct an engine that can speak here.

    Raises:
        UsageError: something it needs is absent; names the command that brings it and the engines that work.
    """
    made = engine(name, settings)
    if advice := made.missing():
        working = ", ".join(other for other in ENGINES if other != name and not engine(other).missing()) or "none"
        raise UsageError(f"speech engine {name!r} can't speak on this machine; {advice} (working here: {working})")
    return made


def find_voice(voice_id: str, settings: dict[str, Settings] | None = None) -> Voice:
    """Return the voice called `engine:name`.

    Raises:
        UsageError: the engine or the voice does not exist; lists what does.
    """
    engine_name, colon, name = voice_id.partition(":")
    if not colon:
        raise UsageError(f"voice {voice_id!r} has no engine; write it as engine:name, such as hibari:heart")
    voices = engine(engine_name, (settings or {}).get(engine_name)).voices()
    for voice in voices:
        if voice.name == name:
            return voice
    raise UsageError(
        f"speech engine {engine_name!r} has no voice {name!r}; it has: {', '.join(voice.name for voice in voices)}"
    )
