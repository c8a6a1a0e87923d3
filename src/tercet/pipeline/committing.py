"""Turn judged items into shards: per span, in plan order, one journal transaction after the files are durable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tercet.pipeline.making import Payloads, cell_name
from tercet.pipeline.planned import PlannedModality
from tercet.randomness import canonical_json, seed_for
from tercet.records import Item, ModelUse, Record, Verdict, record_id
from tercet.store.blobs import BlobStore
from tercet.store.journal import Change, Counts, Journal
from tercet.store.shards import read_shard, write_shards

REASON_CHARACTERS = 60  # reject reasons are counted by their words before the first colon
DUPLICATE = Verdict("duplicate", passed=False, reason="equal payload")


class Committing:
    """Writes one modality's shards and rejects."""

    def __init__(
        self,
        planned: PlannedModality,
        journal: Journal,
        blobs: BlobStore,
        run_dir: Path,
        recipe_digest: str,
        recipe_seed: int,
    ) -> None:
        self.planned, self.journal, self.blobs, self.run_dir = planned, journal, blobs, run_dir
        self.recipe_digest, self.recipe_seed = recipe_digest, recipe_seed
        self.name = planned.name
        self.gates = [gate.name for gate in (*planned.gates, *planned.corpus_gates)]

    def committed(self) -> set[int]:
        """Return the first index of each committed span."""
        return {row[0] for row in self.journal.rows("SELECT first FROM spans WHERE modality = ?", (self.name,))}

    def commit(self, items: list[Item], span: range, payloads: Payloads) -> None:
        """Write the shards of one span; replaces what an earlier commit of the span wrote."""
        made = self._made(span)
        verdicts = self._decide(items, span, made)
        counts: Counts = {}
        shards: list[tuple[object, ...]] = []
        kept = [item for item in items if item.index in verdicts and verdicts[item.index][-1].passed]
        rejected = [item for item in items if item.index in verdicts and not verdicts[item.index][-1].passed]

        def records(chosen: Iterable[Item]) -> Iterator[Record]:
            return (self._record(item, made[item.index], verdicts[item.index], payloads) for item in chosen)

        for split in sorted({item.split for item in kept}):
            chosen = [item for item in kept if item.split == split]
            shards += self._write(Path("shards", self.name, split), split, span, records(chosen), counts)
            self._add(counts, f"accepted:{split}", len(chosen))
        if rejected:
            shards += self._write(Path("rejects", self.name), "", span, records(rejected), counts)
        self._count(kept, rejected, verdicts, counts)
        self._finish(span, shards, [(self.name, made[item.index][0], item.index) for item in kept], counts)

    def _made(self, span: range) -> dict[int, tuple[str, ModelUse]]:
        rows = self.journal.rows(
            "SELECT idx, fingerprint, reference, digest, licence, output_terms FROM made JOIN models ON model = id "
            "WHERE modality = ? AND idx >= ? AND idx < ?",
            (self.name, span.start, span.stop),
        )
        return {row[0]: (row[1], ModelUse(*row[2:])) for row in rows}

    def _decide(
        self, items: list[Item], span: range, made: Mapping[int, tuple[str, ModelUse]]
    ) -> dict[int, list[Verdict]]:
        """Order each made item's verdicts; an equal payload from an earlier item makes it a duplicate."""
        journalled = self.journal.verdicts(self.name, span)
        known = {
            row[0]: row[1]
            for row in self.journal.rows(
                "SELECT made.fingerprint, records.idx FROM made JOIN records USING (modality, fingerprint) "
                "WHERE made.modality = ? AND made.idx >= ? AND made.idx < ?",
                (self.name, span.start, span.stop),
            )
        }
        decided: dict[int, list[Verdict]] = {}
        for item in items:
            if item.index not in made:
                continue
            mine = journalled.get(item.index, {})
            ordered = [mine[gate] for gate in self.gates if gate in mine]
            fingerprint = made[item.index][0]
            if all(verdict.passed for verdict in ordered):
                if known.setdefault(fingerprint, item.index) != item.index:
                    ordered.append(DUPLICATE)
                elif not ordered:
                    ordered.append(Verdict("none", passed=True))
            else:  # the verdict that rejected stands last
                ordered.sort(key=lambda verdict: not verdict.passed)
            decided[item.index] = ordered
        return decided

    def _record(self, item: Item, made: tuple[str, ModelUse], verdicts: list[Verdict], payloads: Payloads) -> Record:
        fingerprint, model = made
        payload, parameters = payloads(item.index)
        own = dict(parameters)
        lineage = {
            "recipe": self.recipe_digest,
            "item": item.key,
            "parents": own.pop("parents", []),
            "generator": item.generator,
            "model": {
                "reference": model.reference,
                "digest": model.digest,
                "licence": model.licence,
                "output_terms": model.output_terms,
            },
            "seed": seed_for(self.recipe_seed, item.key, "generate"),
            "parameters": own,
        }
        gates = tuple(verdict for verdict in verdicts if verdict.gate != "none")
        return Record(
            record_id(self.name, item.key, fingerprint), item.key, self.name, item.split, payload, lineage, gates
        )

    def _write(
        self, folder: Path, split: str, span: range, records: Iterator[Record], counts: Counts
    ) -> Iterator[tuple[object, ...]]:
        for written in write_shards(self.run_dir / folder, span.start, self.planned.payload, self.name, records):
            self._add(counts, "bytes", written.bytes)
            path = (folder / Path(written.path).name).as_posix()
            yield (path, self.name, split, span.start, written.digest, written.rows, written.bytes)

    def _count(
        self, kept: list[Item], rejected: list[Item], verdicts: Mapping[int, list[Verdict]], counts: Counts
    ) -> None:
        self._add(counts, "accepted", len(kept))
        self._add(counts, "rejected", len(rejected))
        for item in kept:
            self._add(counts, f"{cell_name(item)}:kept", 1)
            for label in {verdict.label for verdict in verdicts[item.index] if verdict.label}:
                self._add(counts, f"label:{label}", 1)
        for item in rejected:
            verdict = verdicts[item.index][-1]
            reason = verdict.reason.split(":")[0][:REASON_CHARACTERS] or "rejected"
            self._add(counts, f"reason:{verdict.gate}:{reason}", 1)

    def _add(self, counts: Counts, name: str, value: float) -> None:
        if value:
            counts[self.name, name] = counts.get((self.name, name), 0) + value

    def _finish(
        self, span: range, shards: list[tuple[object, ...]], records: list[tuple[object, ...]], counts: Counts
    ) -> None:
        """Commit the span in one transaction, then free its blobs."""
        where = (self.name, span.start)
        old = self.journal.rows("SELECT counts FROM spans WHERE modality = ? AND first = ?", where)
        stale = {row[0] for row in self.journal.rows("SELECT path FROM shards WHERE modality = ? AND span = ?", where)}
        change = dict(counts)
        for name, value in (json.loads(old[0][0]) if old else {}).items():
            change[self.name, name] = change.get((self.name, name), 0) - value
        blobs = self._free_blobs(span)
        own_counts = canonical_json({name: value for (_, name), value in counts.items()})
        changes: list[Change] = [
            ("DELETE FROM shards WHERE modality = ? AND span = ?", [where]),
            ("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?)", shards),
            ("DELETE FROM records WHERE modality = ? AND idx >= ? AND idx < ?", [(self.name, span.start, span.stop)]),
            ("INSERT INTO records (modality, fingerprint, idx) VALUES (?, ?, ?)", records),
            ("INSERT OR REPLACE INTO spans VALUES (?, ?, ?)", [(*where, own_counts)]),
            ("DELETE FROM staged WHERE modality = ? AND idx >= ? AND idx < ?", [(self.name, span.start, span.stop)]),
        ]
        self.journal.write(changes, change)
        for path in stale - {str(shard[0]) for shard in shards}:
            (self.run_dir / path).unlink(missing_ok=True)
        for blob in blobs:
            self.blobs.delete(blob)

    def _free_blobs(self, span: range) -> list[str]:
        """List the blobs that only this span's items still need."""
        values = (self.name, span.start, span.stop)
        inside = "modality = ? AND idx >= ? AND idx < ?"
        rows = self.journal.rows(
            f"SELECT DISTINCT blob FROM staged WHERE {inside} AND NOT EXISTS (SELECT 1 FROM staged AS other "
            "WHERE other.blob = staged.blob AND NOT (other.modality = ? AND other.idx >= ? AND other.idx < ?))",
            values + values,
        )
        return [row[0] for row in rows]

    def stored_payloads(self, span: range, items: list[Item], staged: Payloads) -> Payloads:
        """Give access to a span's payloads where some are in its old shards already and others are staged."""
        index_of = {item.key: item.index for item in items}
        waiting = {
            row[0]
            for row in self.journal.rows(
                "SELECT DISTINCT idx FROM staged WHERE modality = ? AND idx >= ? AND idx < ?",
                (self.name, span.start, span.stop),
            )
        }
        stored: dict[int, tuple[Mapping[str, object], Mapping[str, object]]] = {}
        for (path,) in self.journal.rows(
            "SELECT path FROM shards WHERE modality = ? AND span = ?", (self.name, span.start)
        ):
            for record in read_shard(self.run_dir / path):
                lineage = record.lineage
                parameters = {**lineage["parameters"], "parents": lineage["parents"]}
                stored[index_of[record.item_key]] = (record.payload, parameters)
        if not stored:
            return staged

        def payload(index: int) -> tuple[Mapping[str, object], Mapping[str, object]]:
            return stored[index] if index in stored and index not in waiting else staged(index)

        return payload
