"""The run's memory: what was made, judged, failed and committed, in SQLite on a local disk.

Only the driver opens it. One writer thread groups whatever is waiting (at most 200 rows or 50 ms) into one durable
transaction, so a caller that waits for its ticket knows its row survives `kill -9` and a power cut. Counters change
in the same transaction as the rows they count, so `status` never scans.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tercet.errors import CorruptError, StoreError
from tercet.files import disk_error
from tercet.records import Failure, Verdict

JOURNAL_VERSION = 1
GROUP_ROWS = 200
GROUP_SECONDS = 0.05
CHECKED_BYTES = 64 * 2**20  # a journal up to this size is checked whole when it's opened

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models (id INTEGER PRIMARY KEY, reference TEXT, digest TEXT, licence TEXT, output_terms TEXT,
                     UNIQUE (reference, digest, licence, output_terms));
CREATE TABLE made (modality TEXT, idx INTEGER, key TEXT NOT NULL, fingerprint TEXT NOT NULL, model INTEGER NOT NULL,
                   packed BLOB, PRIMARY KEY (modality, idx)) WITHOUT ROWID;
CREATE TABLE staged (blob TEXT, modality TEXT, idx INTEGER, PRIMARY KEY (blob, modality, idx)) WITHOUT ROWID;
CREATE TABLE verdicts (modality TEXT, gate TEXT, idx INTEGER, passed INTEGER NOT NULL, score REAL, threshold REAL,
                       reason TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (modality, gate, idx)) WITHOUT ROWID;
CREATE TABLE errors (modality TEXT, idx INTEGER, stage TEXT NOT NULL, error TEXT NOT NULL, retryable INTEGER NOT NULL,
                     message TEXT NOT NULL, PRIMARY KEY (modality, idx)) WITHOUT ROWID;
CREATE TABLE answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE records (modality TEXT, fingerprint TEXT, idx INTEGER NOT NULL, PRIMARY KEY (modality, fingerprint))
                     WITHOUT ROWID;
CREATE TABLE shards (path TEXT PRIMARY KEY, modality TEXT, split TEXT, span INTEGER, digest TEXT, rows INTEGER,
                     bytes INTEGER) WITHOUT ROWID;
CREATE TABLE spans (modality TEXT, first INTEGER, counts TEXT NOT NULL, PRIMARY KEY (modality, first)) WITHOUT ROWID;
CREATE TABLE counters (modality TEXT, name TEXT, value REAL NOT NULL, PRIMARY KEY (modality, name)) WITHOUT ROWID;
"""

Counts = dict[tuple[str, str], float]
Change = tuple[str, Sequence[tuple[Any, ...]]]  # one statement and its rows
Entry = tuple[list[Change], Counts, Future[None], bool]  # what was submitted, its ticket, and whether it may wait


class Journal:
    """Open or create the journal of a run directory.

    Raises:
        CorruptError: the file isn't a journal, or is damaged; says which and what to do.
        StoreError: it can't be created or written, or comes from a newer tercet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._create()
            self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._check()
        except sqlite3.Error as error:
            raise _explain(path, error) from error
        self._read_lock = threading.Lock()
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._writer = threading.Thread(target=self._write_groups, name="journal", daemon=True)
        self._writer.start()

    def _create(self) -> None:
        """Create the tables in one transaction, unless they are there: a kill leaves all of them or none."""
        if self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.strip().split(";\n"):
            self._connection.execute(statement)
        self._connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(JOURNAL_VERSION),))
        self._connection.execute("COMMIT")

    def _check(self) -> None:
        if self.path.stat().st_size <= CHECKED_BYTES:
            said = self._reader.execute("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise sqlite3.DatabaseError(said)
        version = self._reader.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0]
        if int(version) > JOURNAL_VERSION:
            raise StoreError(f"{self.path}: journal version {version} is newer than {JOURNAL_VERSION}; update tercet")

    # -- writing ---------------------------------------------------------------------------------------------------

    def submit(self, changes: list[Change], counts: Counts | None = None, *, may_wait: bool = False) -> Future[None]:
        """Queue changes that belong to one transaction; the future resolves once they are durable.

        `may_wait`: nobody waits for these, so they join the next transaction, at most GROUP_SECONDS later.
        """
        ticket: Future[None] = Future()
        ticket.set_running_or_notify_cancel()  # a caller that goes away must not stop the write
        if self._failure is not None:
            ticket.set_exception(self._failure)
        else:
            self._queue.put((changes, counts or {}, ticket, may_wait))
        return ticket

    def write(self, changes: list[Change], counts: Counts | None = None) -> None:
        """Write changes durably before returning."""
        self.submit(changes, counts).result()

    def close(self) -> None:
        """Write what is queued, then close."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        self._reader.close()
        self._connection.close()

    def _write_groups(self) -> None:
        is_open = True
        while is_open:
            first = self._queue.get()
            if first is None:
                return
            group, rows, start = [first], _num_rows(first), time.monotonic()
            # whatever queued up while the last group was being written goes into this one
            while rows < GROUP_ROWS and (left := start + GROUP_SECONDS - time.monotonic()) > 0:
                try:
                    entry = self._queue.get(timeout=left) if all(one[3] for one in group) else self._queue.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    is_open = False
                    break
                group.append(entry)
                rows += _num_rows(entry)
            self._commit(group)

    def _commit(self, group: list[Entry]) -> None:
        counts: Counts = {}
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for changes, added, _, _ in group:
                for statement, values in changes:
                    self._connection.executemany(statement, values)
                for name, value in added.items():
                    counts[name] = counts.get(name, 0) + value
            self._connection.executemany(
                "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                [(modality, name, value) for (modality, name), value in counts.items()],
            )
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._failure = _explain(self.path, error)
            for _, _, ticket, _ in group:
                ticket.set_exception(self._failure)
            return
        for _, _, ticket, _ in group:
            ticket.set_result(None)

    # -- reading ---------------------------------------------------------------------------------------------------

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._read_lock:
            try:
                return self._reader.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _explain(self.path, error) from error

    def meta(self) -> dict[str, str]:
        """Return the run's facts: recipe, digests, state."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def set_meta(self, **facts: str) -> None:
        """Replace some of the run's facts."""
        self.write([("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))])

    def indexes(self, table: str, modality: str, span: range) -> set[int]:
        """Return which items of a span have a row in `made` or `errors`."""
        statement = f"SELECT idx FROM {table} WHERE modality = ? AND idx >= ? AND idx < ?"
        return {row[0] for row in self.rows(statement, (modality, span.start, span.stop))}

    def verdicts(self, modality: str, span: range) -> dict[int, dict[str, Verdict]]:
        """Return the verdicts of a span, by item and gate."""
        found: dict[int, dict[str, Verdict]] = {}
        for gate, idx, passed, score, threshold, reason, label in self.rows(
            "SELECT gate, idx, passed, score, threshold, reason, label FROM verdicts "
            "WHERE modality = ? AND idx >= ? AND idx < ?",
            (modality, span.start, span.stop),
        ):
            found.setdefault(idx, {})[gate] = Verdict(gate, bool(passed), score, threshold, reason, label)
        return found

    def answer(self, key: str) -> bytes | None:
        """Return the journalled answer under `key`."""
        found = self.rows("SELECT value FROM answers WHERE key = ?", (key,))
        return bytes(found[0][0]) if found else None

    def counter(self, modality: str, name: str) -> float:
        """Return one counter, 0 when nothing was counted."""
        found = self.rows("SELECT value FROM counters WHERE modality = ? AND name = ?", (modality, name))
        return float(found[0][0]) if found else 0.0


def _num_rows(entry: Entry) -> int:
    return sum(len(change[1]) for change in entry[0])


def verdict_rows(modality: str, verdicts: Iterable[tuple[int, Verdict]]) -> Change:
    """Give the change that journals verdicts of items."""
    return (
        "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(modality, v.gate, idx, int(v.passed), v.score, v.threshold, v.reason[:200], v.label) for idx, v in verdicts],
    )


def error_rows(modality: str, failures: Iterable[tuple[int, Failure]]) -> Change:
    """Give the change that journals failures of items."""
    return (
        "INSERT OR REPLACE INTO errors VALUES (?, ?, ?, ?, ?, ?)",
        [(modality, idx, f.stage, f.error, int(f.retryable), f.message[:400]) for idx, f in failures],
    )


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]]:
    """Open a journal for reading alone, beside a live run or after it."""
    if not path.exists():
        raise StoreError(f"{path.parent}: no journal here; give a run directory, or make one with: tercet run")
    try:
        connection = _connect_read_only(path)
        try:
            yield lambda statement, values: connection.execute(statement, values).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _explain(path, error) from error


def _connect_read_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.execute("SELECT 1 FROM meta").fetchone()
    except sqlite3.OperationalError:
        # a folder that can't be written has no place for the WAL's shared memory: read the file as it stands
        connection.close()
        return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    return connection


def _explain(path: Path, error: sqlite3.Error) -> StoreError:
    """Turn SQLite's word into ours: damaged, full, or not writable."""
    said = str(error)
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in said:
        reason = OSError(0, said)
        return disk_error(path, reason)
    return CorruptError(
        f"{path}: the journal is damaged ({said}); its shards are intact. Keep the folder, and either restore the "
        "journal from a copy or start again with: tercet run --fresh"
    )
