"""`tercet audio calibrate`: measure how well the round-trip judge hears voices, one by one, into a table."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, emit, note
from tercet.errors import UsageError
from tercet.files import write_atomically
from tercet.machine import describe_machine
from tercet_audio.calibration import Figure, Key, measure, read_figures
from tercet_audio.cast import voices_of
from tercet_audio.engines import ENGINES, engine, ready_engine

NUM_SENTENCES = 50
LIBRARIES = ("torch", "transformers", "openai-whisper", "numpy", "soxr", "hibari-tts", "py-nanotts", "espeakng-loader")


def calibrate(
    voice: Annotated[list[str] | None, typer.Option(metavar="ENGINE:NAME", help="Default: each engine's few.")] = None,
    out: Annotated[Path, typer.Option(help="The table; voices already in it are kept.")] = Path("calibration.json"),
    judge: Annotated[str, typer.Option(help="hf:owner/name, path:./dir, pkg:distribution, or auto.")] = "auto",
    sentences: Annotated[int, typer.Option(min=1, help="How many each voice reads.")] = NUM_SENTENCES,
    *,
    as_json: Json = False,
) -> None:
    """Measure the word errors a judge makes on ordinary sentences, voice by voice."""
    from tercet.models import resolve
    from tercet_audio.gates.round_trip import load_listener

    wanted = voice or default_voices()
    uses = {one: ready_engine(one.partition(":")[0]).use() for one in wanted}
    known = _known(out)
    model = resolve(judge, "whisper-judge")
    todo = [one for one in wanted if (uses[one].digest, one, model.digest) not in known]
    note(f"{len(wanted) - len(todo)} of {len(wanted)} voices are in {out}; the judge is {model.reference}")
    listener = load_listener(model, "en") if todo else None
    for place, one in enumerate(todo, 1):
        assert listener
        figure = measure(one, {}, model, listener, sentences)
        known[figure.key] = figure
        write_atomically(out, _document(known).encode())
        rates = f"median {figure.median_wer}, mean {figure.mean_wer}"
        note(f"{place}/{len(todo)} {one}: word error rate by sentence: {rates}")
    if as_json:
        emit({"figures": [asdict(figure) for figure in _in_order(known)]})


def default_voices() -> list[str]:
    """List the voices that recipes get without naming any, of the engines that can speak here."""
    ready = [name for name in ENGINES if not engine(name).missing()]
    return [voice.id for name in ready if engine(name).voices() for voice in voices_of(name, (), {})]


def _known(out: Path) -> dict[Key, Figure]:
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"--out {out}: not a file in an existing folder; name one, such as calibration.json")
    if not out.exists():
        return {}
    try:
        return read_figures(out.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out}: not a calibration table: {error}; name another file with --out") from error


def _document(known: dict[Key, Figure]) -> str:
    document = {
        "command": shlex.join(["tercet", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "figures": [asdict(figure) for figure in _in_order(known)],
    }
    return json.dumps(document, indent=1) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # an engine's extra that the measured voices didn't need
        return "absent"


def _in_order(known: dict[Key, Figure]) -> list[Figure]:
    return sorted(known.values(), key=lambda figure: (figure.voice, figure.key))
