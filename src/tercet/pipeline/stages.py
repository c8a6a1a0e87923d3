"""A stage as a worker sees it: load one generator or gate, then answer batches.

Nothing here knows which executor runs it. `Stage` crosses processes; a runner is built from it where the work is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tercet import registry
from tercet.errors import BackendError, CorruptError
from tercet.modality import Answers, Needs, Resources
from tercet.pipeline.staging import Staged, stage, unstage
from tercet.records import Candidate, Failure, Item, Made, Verdict
from tercet.store.blobs import FolderBlobs

COULD_NOT_RUN = "could not run"


@dataclass(frozen=True)
class Stage:
    """One step of a modality's work: which code, with which section of the recipe."""

    kind: Literal["generate", "gate"]
    modality: str
    name: str
    code: str  # "module:attribute"
    extra: str
    payload: str  # "module:attribute" of the PayloadType
    section: Any  # the generator's or gate's own recipe section
    recipe_seed: int
    language: str
    root: str
    blobs: Path

    @property
    def title(self) -> str:
        """Name for progress and errors: `audio generate speech`."""
        return f"{self.modality} {self.kind} {self.name}"

    def load(self) -> Any:
        """Import the stage's class."""
        return registry.load(self.code, self.extra)

    @property
    def needs(self) -> Needs:
        """What one worker of this stage takes."""
        needs: Needs = getattr(self.load(), "needs", Needs())
        return needs

    @property
    def batch_size(self) -> int:
        """Items per batch, cut from the plan by index."""
        return int(getattr(self.load(), "batch_size", 64))

    def resources(self, cores: int, answers: Answers) -> Resources:
        """Give what a generator or gate gets beside its section."""
        return Resources(self.recipe_seed, self.language, cores, answers, self.root)


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a batch: for a gate also its staged payload and its fixed slot."""

    item: Item
    packed: bytes = b""
    slot: int = 0


Outcome = Staged | Failure | Verdict
Result = tuple[int, Outcome]  # (index of the item, what came of it)


class Runner:
    """A stage's code, loaded once and called with batches."""

    def __init__(self, stage: Stage, cores: int, answers: Answers) -> None:
        self.stage = stage
        self.blobs = FolderBlobs(stage.blobs)
        self.payload_type = registry.load(stage.payload, stage.extra)
        self.code = stage.load()(stage.section, stage.resources(cores, answers))

    def __call__(self, entries: Sequence[Entry]) -> Iterator[Result]:
        """Yield one result per entry, in order."""
        return self._generate(entries) if self.stage.kind == "generate" else self._judge(entries)

    def _generate(self, entries: Sequence[Entry]) -> Iterator[Result]:
        """Make payloads; an exception is that item's failure, and the rest of the batch goes on without it."""
        at = 0
        while at < len(entries):
            try:
                for made in self.code([entry.item for entry in entries[at:]]):
                    index = entries[at].item.index
                    yield index, self.settle(made)
                    at += 1
                if at < len(entries):
                    raise RuntimeError(f"gave no answer for item {entries[at].item.index}")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - whatever third-party code raises becomes this item's failure
                yield entries[at].item.index, as_failure(self.stage.kind, error)
                at += 1

    def settle(self, made: Made | Failure) -> Staged | Failure:
        """Stage a payload; a failure passes through."""
        return made if isinstance(made, Failure) else stage(made, self.payload_type, self.blobs)

    def _judge(self, entries: Sequence[Entry]) -> Iterator[Result]:
        """Judge payloads; a gate that can't run rejects, and says so."""
        try:
            candidates = [self._candidate(entry) for entry in entries]
            verdicts = list(self.code(candidates))
            if len(verdicts) != len(candidates):
                raise RuntimeError(f"gave {len(verdicts)} verdicts for {len(candidates)} candidates")  # noqa: TRY301
        except CorruptError:
            raise
        except Exception as error:  # noqa: BLE001 - fail closed, whatever a third-party gate raises
            reason = f"{COULD_NOT_RUN}: {type(error).__name__}: {error}"
            verdicts = [Verdict(self.stage.name, passed=False, reason=reason)] * len(entries)
        for entry, verdict in zip(entries, verdicts, strict=True):
            yield entry.item.index, replace(verdict, gate=self.stage.name)

    def _candidate(self, entry: Entry) -> Candidate:
        payload, parameters = unstage(entry.packed, self.blobs)
        return Candidate(entry.item, payload, parameters, entry.slot)


def as_failure(stage_name: str, error: Exception) -> Failure:
    """Name an exception as an item's failure."""
    retryable = error.retryable if isinstance(error, BackendError) else isinstance(error, OSError)
    return Failure(stage_name, type(error).__name__, str(error) or repr(error), retryable)
