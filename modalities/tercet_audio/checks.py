"""What doctor and validate can say about speech without a word spoken: engines, the judge, the language."""

from __future__ import annotations

from collections.abc import Iterator

from tercet.modality import Check
from tercet.models import AUTO, parse_reference
from tercet.models.carried import is_cached
from tercet.models.packages import PACKAGES
from tercet_audio.cast import settings_of
from tercet_audio.engines import ENGINES, engine
from tercet_audio.engines.base import Settings
from tercet_audio.recipe import AudioRecipe, RoundTripGate


def checks(section: AudioRecipe | None) -> Iterator[Check]:
    """Check the engines that a section uses, or every one; then what judges the clips."""
    yield Check("speech", True, "English is tested; other languages are not", required=False)
    settings = settings_of(section) if section else {}
    for name in _engines_used(section) if section else ENGINES:
        yield _check_engine(name, settings.get(name), is_required=section is not None)
    judge = section.gates.round_trip if section else RoundTripGate()
    if judge:
        yield _check_judge(judge.judge, is_required=section is not None)


def _engines_used(section: AudioRecipe) -> list[str]:
    """Name the engines that a section's plan asks for, each once."""
    names = list(section.engines)
    if section.held_out.engine and (section.held_out.engine_clips or section.general.clips):
        names.append(section.held_out.engine)
    if section.general.voice and section.general.clips:
        names.append(section.general.voice.partition(":")[0])
    return list(dict.fromkeys(names))


def _check_engine(name: str, settings: Settings | None, *, is_required: bool) -> Check:
    made = engine(name, settings)
    advice = made.missing()
    return Check(
        f"speech engine {name}", not advice, "not installed" if advice else f"{len(made.voices())} voices",
        advice, made.licence, made.output_terms, is_required,
    )  # fmt: skip


def _check_judge(reference_text: str, *, is_required: bool) -> Check:
    """Say what the round trip listens with; a judge's words never enter a record, so its output terms don't matter."""
    reference = parse_reference(reference_text)
    name = AUTO["whisper-judge"][1] if reference.scheme == "auto" else reference.name
    title = f"speech judge {reference_text}"
    if reference.scheme not in ("auto", "pkg"):
        return Check(title, True, "not looked at before the run", required=is_required)
    if name not in PACKAGES:
        return Check(title, False, "no such carried model", f"known: {', '.join(PACKAGES)}", required=is_required)
    package = PACKAGES[name]
    detail = f"pkg:{name}, " + ("cached" if is_cached(name) else f"fetched on first use ({package.size / 1e6:.0f} MB)")
    return Check(title, True, detail, licence=package.licence, required=is_required)
