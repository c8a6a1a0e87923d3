"""One modality's way through its plan: generate, judge gate by gate, judge the corpus, commit. Each step resumes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby

from tercet.modality import Answers, NoAnswers
from tercet.pipeline.executor import Executor
from tercet.pipeline.planned import PlannedModality
from tercet.pipeline.progress import OnProgress, Progress
from tercet.pipeline.stages import Entry, Outcome, Result, Stage
from tercet.pipeline.staging import Staged, unstage
from tercet.pipeline.waiting import run_waiting, waits
from tercet.randomness import canonical_json
from tercet.records import Candidate, Failure, Item, ModelUse, Verdict
from tercet.store.blobs import BlobStore
from tercet.store.journal import Change, Counts, Journal, error_rows, verdict_rows

CORPUS_BATCH = 200  # verdicts per transaction
Payloads = Callable[[int], tuple[Mapping[str, object], Mapping[str, object]]]


class Making:
    """Makes and judges the items of one modality, span by span."""

    def __init__(
        self,
        planned: PlannedModality,
        journal: Journal,
        blobs: BlobStore,
        executor: Executor,
        answers: Answers,
        is_stopping: Callable[[], bool],
        on_progress: OnProgress,
    ) -> None:
        self.planned, self.journal, self.blobs, self.executor = planned, journal, blobs, executor
        self.answers, self.is_stopping, self.on_progress = answers, is_stopping, on_progress
        self.name = planned.name
        self._models: dict[ModelUse, int] = {
            ModelUse(*row[1:]): row[0]
            for row in journal.rows("SELECT id, reference, digest, licence, output_terms FROM models")
        }
        self._ticket: Future[None] | None = None

    # -- generate --------------------------------------------------------------------------------------------------

    def generate(self, items: list[Item], span: range) -> None:
        """Make every item of a span that has neither a payload nor an error yet."""
        done = self.journal.indexes("made", self.name, span) | self.journal.indexes("errors", self.name, span)
        by_index = {item.index: item for item in items}
        for name, stage in self.planned.generators.items():
            todo = [item for item in items if item.generator == name and item.index not in done]
            if not todo:
                continue
            asked = sum(item.generator == name for item in items)
            counter = self._counter(stage, span, asked, asked - len(todo))

            def submit(
                results: list[Result],
                may_wait: bool,  # noqa: FBT001 - the shape of Submit
                counter: Callable[[int], None] = counter,
            ) -> Future[None]:
                counter(len(results))
                return self._submit_made(results, by_index, may_wait=may_wait)

            if waits(stage):
                run_waiting(stage, (Entry(item) for item in todo), self.answers, submit, self.is_stopping)
            else:
                batches = ([Entry(item) for item in batch] for batch in _cut(todo, stage.batch_size))
                self.executor.run(stage, batches, lambda results, submit=submit: self._pace(submit(results, False)))  # type: ignore[misc]
                self._settle()

    def _submit_made(self, results: list[Result], items: Mapping[int, Item], *, may_wait: bool) -> Future[None]:
        made: list[tuple[object, ...]] = []
        staged: list[tuple[str, str, int]] = []
        failures: list[tuple[int, Failure]] = []
        new_models: list[tuple[object, ...]] = []
        counts: Counts = {}
        for index, outcome in results:
            item = items[index]
            cell = cell_name(item)
            self._count(counts, f"{cell}:planned")
            if isinstance(outcome, Staged):
                model = self._models.get(outcome.model)
                if model is None:
                    model = self._models[outcome.model] = len(self._models) + 1
                    use = outcome.model
                    new_models.append((model, use.reference, use.digest, use.licence, use.output_terms))
                made.append((self.name, index, item.key, outcome.fingerprint, model, outcome.packed))
                staged += [(blob, self.name, index) for blob in outcome.blobs]
                self._count(counts, "made")
                self._count(counts, f"{cell}:made")
            elif isinstance(outcome, Failure):
                failures.append((index, outcome))
                self._count(counts, "failed")
        changes: list[Change] = [
            ("INSERT OR IGNORE INTO models VALUES (?, ?, ?, ?, ?)", new_models),
            ("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?, ?)", made),
            ("INSERT OR IGNORE INTO staged VALUES (?, ?, ?)", staged),
            error_rows(self.name, failures),
        ]
        return self.journal.submit([change for change in changes if change[1]], counts, may_wait=may_wait)

    def _count(self, counts: Counts, name: str) -> None:
        counts[self.name, name] = counts.get((self.name, name), 0) + 1

    # -- gates -----------------------------------------------------------------------------------------------------

    def judge(self, items: list[Item], span: range) -> None:
        """Run each gate over what the gates before it let through, where it has not judged yet."""
        for position, stage in enumerate(self.planned.gates):
            verdicts = self.journal.verdicts(self.name, span)
            before = [gate.name for gate in self.planned.gates[:position]]
            alive = {
                index for index in self.journal.indexes("made", self.name, span) if _passed(verdicts.get(index), before)
            }
            todo = [item for item in items if item.index in alive and stage.name not in verdicts.get(item.index, {})]
            if not todo:
                continue
            counter = self._counter(stage, span, len(alive), len(alive) - len(todo))
            packed = self._packed(span)
            size = stage.batch_size
            batches = (
                [Entry(item, packed[item.index], item.index % size) for item in batch] for batch in _cut(todo, size)
            )

            def on_results(results: list[Result], counter: Callable[[int], None] = counter) -> None:
                counter(len(results))
                self._pace(self.journal.submit([verdict_rows(self.name, _verdicts(results))]))

            self.executor.run(stage, batches, on_results)
            self._settle()

    def judge_corpus(self, candidates: Callable[[list[str]], Iterator[Candidate]], count: int) -> None:
        """Run the corpus gates over all survivors in plan order; `candidates` streams those that passed some gates."""
        passed = [gate.name for gate in self.planned.gates]
        for stage in self.planned.corpus_gates:
            gate = stage.load()(stage.section, stage.resources(1, NoAnswers()))
            pending: deque[int] = deque()  # a gate may read ahead; its verdicts come in the same order
            batch: list[tuple[int, Verdict]] = []
            for judged, verdict in enumerate(gate(_remembering(candidates(passed), pending)), start=1):
                batch.append((pending.popleft(), replace(verdict, gate=stage.name)))
                if len(batch) == CORPUS_BATCH:
                    self._pace(self.journal.submit([verdict_rows(self.name, batch)]))
                    batch = []
                    self.on_progress(Progress(stage.title, judged, count))
            self._settle()
            self.journal.write([verdict_rows(self.name, batch)])
            passed.append(stage.name)

    # -- shared ----------------------------------------------------------------------------------------------------

    def payloads(self, span: range) -> Payloads:
        """Give access to the staged payloads of a span: index -> (payload, parameters)."""
        packed = self._packed(span)
        return lambda index: unstage(packed[index], self.blobs)

    def _packed(self, span: range) -> dict[int, bytes]:
        rows = self.journal.rows(
            "SELECT idx, packed FROM made WHERE modality = ? AND idx >= ? AND idx < ?",
            (self.name, span.start, span.stop),
        )
        return dict(rows)

    def _pace(self, ticket: Future[None]) -> None:
        """Keep one transaction in flight: results never pile up in memory faster than the disk takes them."""
        self._settle()
        self._ticket = ticket

    def _settle(self) -> None:
        if self._ticket is not None:
            self._ticket.result()
            self._ticket = None

    def _counter(self, stage: Stage, span: range, asked: int, already: int) -> Callable[[int], None]:
        """Count what a stage is asked for: known in its span, and elsewhere taken to be the same share of the items."""
        share = asked / len(span)
        before, after = (round(count * share) for count in (span.start, len(self.planned.plan) - span.stop))
        done, total = before + already, before + asked + after

        def count(results: int) -> None:
            nonlocal done
            done += results
            self.on_progress(Progress(stage.title, done, total))

        return count


def cell_name(item: Item) -> str:
    """Name an item's coverage cell for the counters; empty when the modality has no grid."""
    return f"cell:{canonical_json(item.cell)}"


def _cut(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Cut by plan index, never by position in `items`: a resumed run gets the same batches."""
    for _, batch in groupby(items, key=lambda item: item.index // size):
        yield list(batch)


def _passed(verdicts: Mapping[str, Verdict] | None, gates: list[str]) -> bool:
    return all(verdicts is not None and gate in verdicts and verdicts[gate].passed for gate in gates)


def _verdicts(results: list[Result]) -> Iterator[tuple[int, Verdict]]:
    for index, outcome in results:
        verdict: Outcome = outcome
        if isinstance(verdict, Verdict):
            yield index, verdict


def _remembering(candidates: Iterator[Candidate], pending: deque[int]) -> Iterator[Candidate]:
    for candidate in candidates:
        pending.append(candidate.item.index)
        yield candidate
