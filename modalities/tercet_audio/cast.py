"""Who speaks in which split: a recipe's engines and voices, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tercet.errors import UsageError
from tercet_audio.engines import find_voice, ready_engine
from tercet_audio.engines.base import Settings, Voice
from tercet_audio.recipe import AudioRecipe

# of espeak-ng's voices, one of each accent that a listener understands: `tercet audio calibrate` gave medians of
# 0.32 to 0.37 for Scotland, Lancashire and the West Midlands, 0.30, 0.45 for two `+f` variants, 0.17 to 0.25 here
BEST_FEW = {"espeak": ("en-us", "en-us-nyc", "en-gb", "en-gb-x-rp")}


@dataclass(frozen=True, slots=True)
class Part:
    """A voice at one pace, and its share of a split."""

    voice: Voice
    pace: float
    share: float


@dataclass(frozen=True)
class Cast:
    """The voices of a recipe: those trained on, the held-out engine's, and the one that reads the general set."""

    trained: tuple[Part, ...]
    held_out: tuple[Part, ...] = ()
    general: tuple[Part, ...] = ()


def settings_of(section: AudioRecipe) -> dict[str, Settings]:
    """Give each engine's own settings."""
    return {name: use.settings for name, use in section.engines.items()}


def voices_of(name: str, wanted: Sequence[str], settings: Settings) -> tuple[Voice, ...]:
    """Return the wanted voices of an engine that can speak here; without a wish, its best few.

    Raises:
        UsageError: the engine or a voice isn't there; names what is.
    """
    there = ready_engine(name, settings).voices()
    names = tuple(wanted) or BEST_FEW.get(name) or tuple(voice.name for voice in there)
    if not names:
        raise UsageError(f"speech engine {name!r} lists no voice; name some in modalities.audio.engines.{name}.voices")
    return tuple(find_voice(f"{name}:{one}", {name: settings}) for one in names)


def cast(section: AudioRecipe) -> Cast:
    """Choose the voices of every split that the recipe asks for.

    Raises:
        UsageError: an absent engine or voice, a pace beyond an engine, or no voice left for the general set.
    """
    trained = {name: voices_of(name, use.voices, use.settings) for name, use in section.engines.items()}
    shares = {name: use.share for name, use in section.engines.items()}
    held_out: Mapping[str, tuple[Voice, ...]] = {}
    if section.held_out.engine and section.held_out.engine_clips:
        held_out = {section.held_out.engine: voices_of(section.held_out.engine, (), {})}
    general: Mapping[str, tuple[Voice, ...]] = {}
    if section.general.clips:
        reader = _general_voice(section, trained)
        general = {reader.engine: (reader,)}
    return Cast(
        _parts(section, trained, shares),
        _parts(section, held_out, dict.fromkeys(held_out, 1.0)),
        _parts(section, general, dict.fromkeys(general, 1.0)),
    )


def _general_voice(section: AudioRecipe, trained: Mapping[str, Sequence[Voice]]) -> Voice:
    """Take the voice that the recipe names, or one that is never trained on."""
    settings = settings_of(section)
    used = {voice.id for voices in trained.values() for voice in voices}
    if named := section.general.voice:
        voice = find_voice(named, settings)
        ready_engine(voice.engine, settings.get(voice.engine))
        if voice.id in used:
            raise UsageError(f"modalities.audio.general.voice: {named!r} is trained on; name a voice that isn't")
        return voice
    if section.held_out.engine:
        return voices_of(section.held_out.engine, (), {})[-1]
    unused = [
        voice
        for name in trained
        for voice in ready_engine(name, settings.get(name)).voices()
        if voice.id not in used
    ]  # fmt: skip
    if not unused:
        raise UsageError(
            f"modalities.audio.general: every voice of {', '.join(trained)} is trained on, so none is left to read the "
            "general sentences; name one in general.voice, hold out an engine, or set general.clips: 0"
        )
    return unused[0]


def _parts(
    section: AudioRecipe, voices: Mapping[str, Sequence[Voice]], shares: Mapping[str, float]
) -> tuple[Part, ...]:
    """Divide an engine's share evenly among its voices and paces."""
    total = sum(shares.values())
    parts = []
    for name, speakers in voices.items():
        _check_paces(section, name)
        share = shares[name] / total / len(speakers) / len(section.paces)
        parts += [Part(voice, pace, share) for voice in speakers for pace in section.paces]
    return tuple(parts)


def _check_paces(section: AudioRecipe, name: str) -> None:
    slowest, fastest = ready_engine(name, settings_of(section).get(name)).pace_range
    for pace in section.paces:
        if not slowest <= pace <= fastest:
            raise UsageError(
                f"modalities.audio.paces: {pace:g} is beyond speech engine {name!r}, which speaks at {slowest:g} to "
                f"{fastest:g}; change the pace or leave the engine out"
            )
