"""Read what the user brings: a term list, documents, real examples. Every input is hostile until checked."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tercet.errors import SourceError
from tercet.files import safe_join
from tercet.recipe import ExampleSource, Recipe

MAX_TERM_CHARACTERS = 120
MANIFESTS = ("manifest.jsonl", "manifest.csv", "manifest.tsv", "transcripts.tsv")
SLOT = "{term}"
TERM_COLUMNS = ("term", "spoken", "category")
DOCUMENT_SUFFIXES = (".md", ".txt")


@dataclass(frozen=True, slots=True)
class Term:
    """One entry of the user's vocabulary; `spoken` is what a speech engine should read instead, if given."""

    text: str
    spoken: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One of the user's documents: its path inside the folder, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One real record of the user's: the manifest row, and for media the file with the digest of its bytes."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    file_digest: str = ""


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark.

    Raises:
        SourceError: the file is missing or isn't UTF-8; names the line and the way to convert it.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file; paths in a recipe start at the recipe's folder") from error
    except OSError as error:
        raise SourceError(f"{path}: can't be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; if the file is Latin-1, convert it: "
            f"iconv -f latin1 -t utf-8 {path.name} > converted && mv converted {path.name}"
        ) from error


def read_terms(path: Path) -> list[Term]:
    """Read a term list: one term a line, or CSV with the header `term[,spoken][,category]`.

    Raises:
        SourceError: an empty, duplicate, over-long or unprintable term, with its line.
    """
    text = read_text(path)
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _line_rows(text)
    terms: list[Term] = []
    lines_of: dict[str, int] = {}
    for line, row in rows:
        term = unicodedata.normalize("NFC", " ".join((row.get("term") or "").split()))
        if not term:
            raise SourceError(f"{path}:{line}: empty term; remove the line or fill it")
        if not term.isprintable():
            raise SourceError(f"{path}:{line}: term {term!r} holds an unprintable character; remove it")
        if len(term) > MAX_TERM_CHARACTERS:
            raise SourceError(
                f"{path}:{line}: term of {len(term)} characters; at most {MAX_TERM_CHARACTERS} are allowed"
            )
        folded = term.casefold()
        if folded in lines_of:
            raise SourceError(f"{path}:{line}: duplicate term {term!r} (first in line {lines_of[folded]}); keep one")
        lines_of[folded] = line
        terms.append(Term(term, (row.get("spoken") or "").strip(), (row.get("category") or "").strip()))
    if not terms:
        raise SourceError(f"{path}: no terms; write one term a line")
    return terms


def _line_rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a plain list; a line that begins with # is a comment, a last empty line is none."""
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.lstrip().startswith("#"):
            yield line, {"term": content}


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    unknown = [name for name in reader.fieldnames or [] if name not in TERM_COLUMNS]
    if unknown or "term" not in (reader.fieldnames or []):
        raise SourceError(
            f"{path}:1: header {reader.fieldnames}; it must be among {', '.join(TERM_COLUMNS)}, with term"
        )
    try:
        for row in reader:
            if None in row:
                raise SourceError(f"{path}:{reader.line_num}: more cells than the header has; quote a cell with commas")
            yield reader.line_num, row
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def read_phrases(path: Path) -> list[str]:
    """Read how terms are said: one sentence a line that holds {term} once; a line that begins with # is a comment.

    Raises:
        SourceError: a sentence without {term}, with two of them, or that stands twice; names the line.
    """
    lines_of: dict[str, int] = {}
    for line, row in _line_rows(read_text(path)):
        phrase = unicodedata.normalize("NFC", " ".join(row["term"].split()))
        if not phrase:
            continue
        if phrase.count(SLOT) != 1 or "{" in phrase.replace(SLOT, "", 1):
            raise SourceError(f"{path}:{line}: {phrase!r} must hold {SLOT} once and no other brace; mend this line")
        if not phrase.isprintable():
            raise SourceError(f"{path}:{line}: {phrase!r} holds an unprintable character; remove it")
        if phrase in lines_of:
            raise SourceError(f"{path}:{line}: duplicate phrase (first in line {lines_of[phrase]}); keep one")
        lines_of[phrase] = line
    if not lines_of:
        raise SourceError(f"{path}: no phrases; write one sentence with {SLOT} a line")
    return list(lines_of)


def read_documents(folder: Path) -> list[Document]:
    """Read every .md and .txt file below `folder`, in the order of their paths."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; paths in a recipe start at the recipe's folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in DOCUMENT_SUFFIXES and path.is_file())
    documents = [Document(path.relative_to(folder).as_posix(), read_text(path).strip()) for path in paths]
    if not documents:
        raise SourceError(f"{folder}: no .md or .txt file in it; add one or remove sources.documents")
    for document in documents:
        if not document.text:
            raise SourceError(f"{folder / document.name}: empty document; fill or remove it")
    return documents


def read_examples(path: Path) -> list[Example]:
    """Read real examples: a .jsonl file, or a folder with a manifest whose rows name a `file` in it.

    A manifest is `manifest.jsonl`, or `manifest.csv`/`.tsv` with a header; `transcripts.tsv` without a header holds
    file and text.
    """
    if path.is_dir():
        manifest = next((path / name for name in MANIFESTS if (path / name).is_file()), None)
        if manifest is None:
            raise SourceError(f"{path}: no manifest in this folder; add one of {', '.join(MANIFESTS)}")
        examples = [_media_example(path, manifest, line, row) for line, row in _manifest_rows(manifest)]
    else:
        examples = [Example(row) for _, row in _jsonl_rows(path)]
    if not examples:
        raise SourceError(f"{path}: no examples in it; add some or remove it from sources.examples")
    return examples


def _manifest_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if manifest.suffix == ".jsonl":
        yield from _jsonl_rows(manifest)
        return
    text = read_text(manifest)
    delimiter = "\t" if manifest.suffix == ".tsv" else ","
    first = text.split("\n", 1)[0].strip().split(delimiter)
    names = None if "file" in first else ["file", "text"]
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader: csv.DictReader[str] = csv.DictReader(io.StringIO(text), names, delimiter=delimiter, quoting=quoting)
    for row in reader:
        if None in row or None in row.values():
            raise SourceError(f"{manifest}:{reader.line_num}: {len(row)} cells do not fit the header; mend this line")
        yield reader.line_num, dict(row)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(read_text(path).splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise SourceError(f"{path}:{line}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(row, dict):
            raise SourceError(f"{path}:{line}: a {type(row).__name__}; each line must be a JSON object")
        yield line, row


def _media_example(folder: Path, manifest: Path, line: int, row: dict[str, Any]) -> Example:
    name = str(row.pop("file", "") or "")
    if not name:
        raise SourceError(f"{manifest}:{line}: no `file`; each row names a file in {folder}")
    file = safe_join(folder, name)
    if not file.is_file():
        raise SourceError(f"{manifest}:{line}: file {name!r} is not in {folder}")
    return Example(row, str(file), hashlib.sha256(file.read_bytes()).hexdigest()[:32])


@dataclass(frozen=True)
class LoadedSources:
    """The recipe's sources, read and checked."""

    terms: tuple[Term, ...] = ()
    phrases: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    examples: Mapping[str, tuple[tuple[Example, ...], ExampleSource]] = field(default_factory=dict)


def load_sources(recipe: Recipe) -> LoadedSources:
    """Read everything that the recipe's `sources` names."""
    sources = recipe.sections.sources
    terms = read_terms(recipe.root / sources.terms) if sources.terms else []
    phrases = read_phrases(recipe.root / sources.phrases) if sources.phrases else []
    documents = read_documents(recipe.root / sources.documents) if sources.documents else []
    examples = {
        source.modality: (tuple(read_examples(recipe.root / source.path)), source) for source in sources.examples
    }
    return LoadedSources(tuple(terms), tuple(phrases), tuple(documents), examples)
