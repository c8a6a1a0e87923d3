"""What models answered, kept line by line as it comes: a killed evaluation goes on, and a second one is instant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from tercet.errors import CorruptError
from tercet.files import disk_error
from tercet.randomness import canonical_json, digest
from tercet.train.adapters import as_base
from tercet.train.loading import load
from tercet.train.task import AnswersBoth, Example, OnUnits, Task


class KeptAnswers:
    """One model's answers by what it was given: `with KeptAnswers(path) as kept: ...`.

    Rows are appended and not fsynced: an answer that a power cut takes is asked again.

    Raises:
        CorruptError: a line inside the file is damaged.
        StoreError: the file can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, str] = {}
        self._file: BinaryIO

    def __enter__(self) -> KeptAnswers:
        try:
            with ExitStack() as opening:
                self._file = opening.enter_context(self.path.open("a+b"))
                self._file.seek(0)
                self._read(self._file)
                opening.pop_all()
        except OSError as error:
            raise disk_error(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def keep(self, key: str, text: str) -> None:
        """Keep the answer to the content that `key` names."""
        try:
            self._file.write(canonical_json({"given": key, "answer": text}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self.path, error) from error
        self._answers[key] = text

    def _read(self, file: BinaryIO) -> None:
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                file.truncate(whole)  # torn by a kill
                return
            whole += len(line)
            try:
                row = json.loads(line)
                self._answers[row["given"]] = row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptError(
                    f"{self.path}:{number}: damaged ({error}); decode again with: tercet eval --fresh"
                ) from error


def answer_all(
    task: Task,
    base: Path,
    adapter: Path,
    given: Mapping[str, Example],
    kept: tuple[KeptAnswers, KeptAnswers],
    begin: Callable[[str], OnUnits],
) -> None:
    """Let base and tuned answer what they haven't yet; `given` is by content digest, `kept` is base's and tuned's.

    `begin` is called with who answers, before a model is loaded, and gives what is told of the progress.
    """
    missing = [[key for key in given if key not in one] for one in kept]
    if not any(missing):
        return
    both = [key for key in given if key in missing[0] and key in missing[1]] if isinstance(task, AnswersBoth) else []
    on_units = begin("base and tuned" if both else "base" if missing[0] else "tuned")
    model = load(task.load_base(base), adapter)
    if both and isinstance(task, AnswersBoth):
        pairs = task.answer_both(model, [given[key] for key in both], on_units)
        for key, pair in zip(both, pairs, strict=True):
            for one, text in zip(kept, pair, strict=True):
                one.keep(key, text)
    for who, one in zip(("base", "tuned"), kept, strict=True):
        keys = [key for key in given if key not in one]
        if keys:
            with as_base(model) if who == "base" else nullcontext():
                for key, text in zip(keys, task.answer(model, [given[key] for key in keys], begin(who)), strict=True):
                    one.keep(key, text)


def content_digest(content: Any) -> str:
    """Name what a model is given: bytes, text, numpy arrays, JSON values, and lists and mappings of them."""
    return digest(*_parts(content))


def _parts(content: Any) -> Iterator[str | bytes]:
    if isinstance(content, str | bytes):
        yield type(content).__name__
        yield content
    elif isinstance(content, np.ndarray):
        yield f"{content.dtype.str} {content.shape}"
        yield content.tobytes()
    elif isinstance(content, Mapping):
        yield f"mapping {len(content)}"
        for name in sorted(content):
            yield str(name)
            yield from _parts(content[name])
    elif isinstance(content, list | tuple):
        yield f"list {len(content)}"
        for part in content:
            yield from _parts(part)
    else:
        yield canonical_json(content)
