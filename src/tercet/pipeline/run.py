"""Run a recipe: plan, generate, gate, commit. The same call resumes by itself and says what it found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tercet.errors import MakingError, NothingSurvived, StoreError, TercetError
from tercet.files import disk_error, write_atomically
from tercet.pipeline.answers import JournalledAnswers
from tercet.pipeline.committing import Committing
from tercet.pipeline.executor import Executor, InProcess, LocalExecutor
from tercet.pipeline.making import Making
from tercet.pipeline.planned import PlannedModality, plan_recipe
from tercet.pipeline.progress import OnProgress, silent
from tercet.randomness import canonical_json, digest
from tercet.recipe import Recipe, dump_recipe
from tercet.records import Candidate
from tercet.sources import LoadedSources, load_sources
from tercet.store.blobs import FolderBlobs
from tercet.store.durable import make_folder, remove_leftovers
from tercet.store.journal import Journal
from tercet.store.lock import RunLock
from tercet.store.manifest import write_manifest
from tercet.store.shards import ShardInfo
from tercet.store.summary import empty_cells, read_summary, top_reasons

JOURNAL = "journal.sqlite"


class Interrupted(TercetError):
    """The run was stopped by a signal; everything done is committed."""

    exit_code = 130


@dataclass(frozen=True)
class RunResult:
    """Where a run's data lies, what it counted, and what it found when it started."""

    run_dir: Path
    summary: dict[str, Any]
    resumed: str


def run_recipe(
    recipe: Recipe,
    out: Path | None = None,
    *,
    workers: int | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    progress: OnProgress = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Make the recipe's data in `out` (default: `runs/<name>` beside the recipe).

    `workers` is the number of processes (default: one per core; 0 runs everything in this one). A run that was
    interrupted goes on where it was; `announce` is told what was found.

    Raises:
        StoreError: the folder holds another recipe's run, is locked, damaged or can't be written.
        MakingError: every item failed.
        NothingSurvived: no record passed.
        Interrupted: Ctrl-C; what was in flight is committed.
    """
    run_dir = out or default_run_dir(recipe)
    sources = load_sources(recipe)
    with ExitStack() as stack:
        _open_folder(run_dir)
        stack.enter_context(RunLock(run_dir))
        remove_leftovers(run_dir)
        if fresh:
            clear_run(run_dir)
        stop = stack.enter_context(StopOnInterrupt())
        journal = Journal(run_dir / JOURNAL)
        stack.callback(journal.close)
        resumed = _identify(journal, recipe, sources, run_dir)
        if resumed:
            announce(resumed)
        run = _Run(recipe, run_dir, journal, workers, stop.is_set, progress)
        stack.callback(run.executor.close)
        planned = plan_recipe(recipe, sources, run_dir)
        journal.set_meta(state="running", **{f"planned:{one.name}": str(len(one.plan)) for one in planned})
        for one in planned:
            run.make(one, retry_failed=retry_failed)
        return _finish(journal, recipe, run_dir, resumed)


def default_run_dir(recipe: Recipe) -> Path:
    """Give `runs/<name>` beside the recipe."""
    return recipe.root / "runs" / recipe.name


class _Run:
    """What every modality of a run shares."""

    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        journal: Journal,
        workers: int | None,
        is_stopping: Callable[[], bool],
        progress: OnProgress,
    ) -> None:
        self.recipe, self.run_dir, self.journal = recipe, run_dir, journal
        self.is_stopping, self.progress = is_stopping, progress
        self.blobs = FolderBlobs(run_dir / "blobs")
        self.answers = JournalledAnswers(journal, recipe.sections.budget)
        count = (os.cpu_count() or 1) if workers is None else workers
        self.executor: Executor = (
            LocalExecutor(count, self.answers, is_stopping) if count else InProcess(self.answers, is_stopping)
        )

    def make(self, planned: PlannedModality, *, retry_failed: bool) -> None:
        """Bring one modality from its plan to committed shards."""
        making = Making(planned, self.journal, self.blobs, self.executor, self.answers, self.is_stopping, self.progress)
        committing = Committing(
            planned, self.journal, self.blobs, self.run_dir, self.recipe.digest, self.recipe.sections.seed
        )
        reopened = _forget_failures(self.journal, planned) if retry_failed else set()
        _forget_lost_blobs(self.journal, self.blobs, planned.name)
        committed = committing.committed() - reopened
        open_spans = [span for span in planned.spans() if span.start not in committed]
        for span in open_spans:
            items = planned.items(span)
            making.generate(items, span)
            self._stop_here()
            making.judge(items, span)
            self._stop_here()
            if not planned.corpus_gates:
                committing.commit(items, span, committing.stored_payloads(span, items, making.payloads(span)))
        if planned.corpus_gates and open_spans:
            self._judge_corpus(planned, making, committing)
            for span in open_spans:
                items = planned.items(span)
                committing.commit(items, span, committing.stored_payloads(span, items, making.payloads(span)))

    def _judge_corpus(self, planned: PlannedModality, making: Making, committing: Committing) -> None:
        def candidates(passed: list[str]) -> Iterator[Candidate]:
            for span in planned.spans():
                items = planned.items(span)
                made = self.journal.indexes("made", planned.name, span)
                verdicts = self.journal.verdicts(planned.name, span)
                payloads = committing.stored_payloads(span, items, making.payloads(span))
                for item in items:
                    mine = verdicts.get(item.index, {})
                    if item.index in made and all(gate in mine and mine[gate].passed for gate in passed):
                        yield Candidate(item, *payloads(item.index))
                    self._stop_here()

        making.judge_corpus(candidates, len(planned.plan))

    def _stop_here(self) -> None:
        if self.is_stopping():
            self.journal.set_meta(state="interrupted")
            raise Interrupted("interrupted: what was done is kept; the same command goes on from here")


class StopOnInterrupt(AbstractContextManager["threading.Event"]):
    """Turns the first Ctrl-C into a request to drain; the second one stops at once.

    Within another one, it tells that one of a request at its end: a stage that had nothing to drain ends as if nothing
    had been asked, and the next stage shall not begin (`stop_between_stages`).
    """

    def __enter__(self) -> threading.Event:
        """Watch for Ctrl-C and SIGTERM; the event says whether one came."""
        self._event = threading.Event()
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self._event

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()

    def __exit__(self, *exc: object) -> None:
        """Give the signals back."""
        if self._is_main:
            for number, handler in self._before.items():
                signal.signal(number, handler)
                outer = getattr(handler, "__self__", None)
                if self._event.is_set() and isinstance(outer, StopOnInterrupt):
                    outer._event.set()


def stop_between_stages(stop: threading.Event) -> None:
    """Raise Interrupted where a signal came during a stage that had nothing to stop at."""
    if stop.is_set():
        raise Interrupted("interrupted: what was done is kept; the same command goes on from here")


def _open_folder(run_dir: Path) -> None:
    try:
        make_folder(run_dir)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise disk_error(run_dir, error) from error


def clear_run(run_dir: Path) -> None:
    """Remove a former run's files, and nothing that a run doesn't write."""
    written = ("manifest.json", "evaluation.json", "scales.json", "report.html", "try.html")
    for name in (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", *written):
        (run_dir / name).unlink(missing_ok=True)
    for name in ("blobs", "shards", "rejects", "training", "adapters", "evaluation"):
        shutil.rmtree(run_dir / name, ignore_errors=True)


def _identify(journal: Journal, recipe: Recipe, sources: LoadedSources, run_dir: Path) -> str:
    """Pin a new run to its recipe, or check that an old one has the same; return what was found."""
    contents = digest(
        repr(sources.terms),
        repr(sources.phrases),
        repr(sources.documents),
        repr([(k, v[0]) for k, v in sorted(sources.examples.items())]),
    )
    meta = journal.meta()
    if "recipe" not in meta:
        write_atomically(run_dir / "recipe.yaml", dump_recipe(recipe).encode())
        journal.set_meta(
            recipe=canonical_json(recipe.data_content), name=recipe.name, recipe_digest=recipe.digest, sources=contents
        )
        return ""
    changed = list(differences(json.loads(meta["recipe"]), json.loads(canonical_json(recipe.data_content))))
    if not changed and meta["sources"] != contents:
        changed = ["sources: the content of the terms, phrases, documents or examples"]
    if changed:
        shown = "\n  ".join(changed[:10])
        raise StoreError(
            f"{run_dir}: holds a run of another recipe; what changed:\n  {shown}\n"
            f"start over with --fresh (this removes that run's data), or give the recipe a new name or --out"
        )
    write_atomically(run_dir / "recipe.yaml", dump_recipe(recipe).encode())
    return _found(journal)


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """List what changed between two JSON values, as `key.of.it: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {canonical_json(old)} -> {canonical_json(new)}"


def _found(journal: Journal) -> str:
    """Say what a resumed run starts from."""
    summary = read_summary(journal.path.parent)
    parts = []
    for name, counts in summary["modalities"].items():
        retryable = sum(error["count"] for error in counts["errors"] if error["retryable"])
        failures = f", {retryable} retryable failures" if retryable else ""
        parts.append(f"{name} {counts['made']:,} of {counts['planned']:,} done{failures}")
    return f"resuming: {'; '.join(parts)}"


def _forget_failures(journal: Journal, planned: PlannedModality) -> set[int]:
    """Drop retryable failures, and rejections by gates that could not run; return the spans that reopen."""
    name = planned.name
    failed = [row[0] for row in journal.rows("SELECT idx FROM errors WHERE modality = ? AND retryable", (name,))]
    unjudged = [
        row[0]
        for row in journal.rows(
            "SELECT idx FROM verdicts WHERE modality = ? AND NOT passed AND reason LIKE 'could not run%'", (name,)
        )
    ]
    counts: dict[tuple[str, str], float] = {(name, "failed"): -float(len(failed))}
    for index in failed:
        cell = f"cell:{canonical_json(planned.plan.item(index).cell)}:planned"
        counts[name, cell] = counts.get((name, cell), 0) - 1
    journal.write(
        [
            ("DELETE FROM errors WHERE modality = ? AND idx = ?", [(name, index) for index in failed]),
            (
                "DELETE FROM verdicts WHERE modality = ? AND idx = ? AND reason LIKE 'could not run%'",
                [(name, index) for index in unjudged],
            ),
        ],
        counts,
    )
    reopened = {*failed, *unjudged}
    return {span.start for span in planned.spans() if any(index in span for index in reopened)}


def _forget_lost_blobs(journal: Journal, blobs: FolderBlobs, modality: str) -> None:
    """Make again what lost its blob: a folder that was copied or cleaned without its blobs heals itself."""
    lost = [
        row[1]
        for row in journal.rows("SELECT blob, idx FROM staged WHERE modality = ?", (modality,))
        if not blobs.has(row[0])
    ]
    if lost:
        which = [(modality, index) for index in sorted(set(lost))]
        journal.write(
            [
                ("DELETE FROM made WHERE modality = ? AND idx = ?", which),
                ("DELETE FROM staged WHERE modality = ? AND idx = ?", which),
                ("DELETE FROM verdicts WHERE modality = ? AND idx = ?", which),
            ],
            {(modality, "made"): -float(len(which))},
        )


def _finish(journal: Journal, recipe: Recipe, run_dir: Path, resumed: str) -> RunResult:
    """Write the manifest and judge the run as a whole."""
    shards = [ShardInfo(*row) for row in journal.rows("SELECT path, digest, rows, bytes FROM shards ORDER BY path")]
    write_manifest(run_dir, recipe.digest, shards)
    shutil.rmtree(run_dir / "blobs", ignore_errors=True)
    journal.set_meta(state="done")
    summary = read_summary(run_dir)
    if not any(counts["accepted"] for counts in summary["modalities"].values()):
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in top_reasons(summary)[:3])
        if not any(counts["made"] for counts in summary["modalities"].values()):
            raise MakingError(
                f"{run_dir}: nothing could be made; the main failures: {reasons}. Mend what they name, then run again "
                "with --retry-failed"
            )
        raise NothingSurvived(f"{run_dir}: no record survived; the main reasons: {reasons}")
    if empty := empty_cells(summary):
        journal.set_meta(state="failed")
        raise StoreError(
            f"{run_dir}: {len(empty)} planned cells kept nothing, first: {empty[0]}; the other records are kept. "
            "Take what it names out of the recipe, or mend what rejects it (tercet report shows the reasons)"
        )
    return RunResult(run_dir, summary, resumed)
