"""`tercet audio voices`: every voice of every engine, its accent and where that comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from tercet.cli.output import Json, emit, note, show, table
from tercet_audio.cast import BEST_FEW
from tercet_audio.engines import ENGINES, engine

COLUMNS = ("voice", "accent", "by", "verified", "sex", "default")


def voices(
    name: Annotated[str | None, typer.Option("--engine", metavar="NAME", help="This speech engine's alone.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the voices a recipe can name."""
    engines = [engine(one) for one in ([name] if name else ENGINES)]
    missing = {one.name: advice for one in engines if (advice := one.missing())}
    listed = [(one, voice) for one in engines for voice in one.voices()]
    if as_json:
        rows = [
            {
                "voice": voice.id,
                "accent": voice.accent,
                "accent_mechanism": voice.accent_mechanism,
                "accent_verified": voice.accent_verified,
                "sex": voice.sex,
                "is_default": _is_default(voice.engine, voice.name),
                "licence": one.licence,
                "output_terms": one.output_terms,
            }
            for one, voice in listed
        ]
        emit({"voices": rows, "missing": missing})
        return
    made = table("", COLUMNS)
    for _, voice in listed:
        verified = "yes" if voice.accent_verified else "no"
        default = "yes" if _is_default(voice.engine, voice.name) else ""
        made.add_row(voice.id, voice.accent, voice.accent_mechanism, verified, voice.sex, default)
    show(made, *[f"{one.name}: {one.licence}; output terms: {one.output_terms}" for one in engines])
    for which, advice in missing.items():
        note(f"{which}: not installed; {advice}")


def _is_default(engine_name: str, voice: str) -> bool:
    """Say whether a recipe that names no voice of this engine gets this one."""
    return voice in BEST_FEW.get(engine_name, (voice,))
