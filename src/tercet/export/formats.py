"""The export formats, one function each: (parts of a run, folder, run directory) -> the data files written."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tercet import registry
from tercet.files import link_or_copy
from tercet.randomness import canonical_json
from tercet.records import Columns, Record
from tercet.store.schema import ShardType
from tercet.store.shards import read_shard, shard_type

TAR_BYTES = 512 * 2**20
TAR_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One split of one modality: its shards in plan order, each with its digest."""

    modality: str
    split: str
    shards: tuple[tuple[Path, str], ...]

    def records(self) -> Iterator[Record]:
        """Yield the records in plan order."""
        for path, _ in self.shards:
            yield from read_shard(path)

    def kind(self) -> ShardType:
        """Say which columns hold media."""
        return shard_type(self.shards[0][0])

    def plain(self) -> Callable[[Columns], Columns]:
        """Give what makes a payload plain JSON; a modality that isn't installed is written as its shards hold it."""
        found = registry.modalities().get(self.modality)
        return registry.load(found.payload).plain if found else lambda payload: payload


def write_parquet(parts: Sequence[Part], folder: Path, run_dir: Path) -> list[Path]:
    """Link or copy the shards under the paths they have in the run, so that the run's dataset card fits them too."""
    written: list[Path] = []
    for part in parts:
        for path, _ in part.shards:
            target = folder / path.relative_to(run_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target)
            written.append(target)
    card = run_dir / "README.md"
    if card.is_file():
        shutil.copyfile(card, folder / card.name)
    return written


def write_jsonl(parts: Sequence[Part], folder: Path, run_dir: Path) -> list[Path]:  # noqa: ARG001
    """Write `<modality>/<split>.jsonl`; a media column holds a path, relative to that file."""
    written: list[Path] = []
    for part in parts:
        kind, plain = part.kind(), part.plain()
        target = folder / part.modality / f"{part.split}.jsonl"
        target.parent.mkdir(exist_ok=True)
        with target.open("w", encoding="utf-8", newline="\n") as file:
            for record in part.records():
                row = _describe(record, kind, plain)
                for suffix, column in _media_suffixes(kind).items():
                    # two digits of fan-out: a folder of a million files is slow everywhere
                    media = Path(part.split, record.id[:2], f"{record.id}.{suffix}")
                    (target.parent / media).parent.mkdir(parents=True, exist_ok=True)
                    (target.parent / media).write_bytes(record.payload[column] or b"")
                    row[column] = media.as_posix()
                file.write(canonical_json(row) + "\n")
        written.append(target)
    return written


def write_webdataset(parts: Sequence[Part], folder: Path, run_dir: Path) -> list[Path]:  # noqa: ARG001
    """Write `<modality>/<split>/{shard:05d}.tar`; keys sort in plan order, a sample's members stand together.

    `.json` holds everything but the media; beside media, `.txt` holds the first text column (transcript, caption).
    """
    written: list[Path] = []
    for part in parts:
        kind, plain = part.kind(), part.plain()
        target = folder / part.modality / part.split
        target.mkdir(parents=True)
        samples = (_sample(record, kind, plain, number) for number, record in enumerate(part.records()))
        for number, members in enumerate(_tars(samples)):
            path = target / f"{number:05d}.tar"
            with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for name, data in members:
                    entry = tarfile.TarInfo(name)  # no clock time, owner or host: the same records, the same bytes
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
            written.append(path)
    return written


Writer = Callable[[Sequence[Part], Path, Path], list[Path]]
WRITERS: dict[str, Writer] = {"parquet": write_parquet, "jsonl": write_jsonl, "webdataset": write_webdataset}
Members = list[tuple[str, bytes]]


def _describe(record: Record, kind: ShardType, plain: Callable[[Columns], Columns]) -> dict[str, Any]:
    """Give a record as JSON values, without its media."""
    payload = {name: value for name, value in plain(record.payload).items() if name not in kind.media}
    own = {"id": record.id, "item_key": record.item_key, "split": record.split}
    return {**payload, **own, "lineage": record.lineage, "verdicts": [asdict(verdict) for verdict in record.verdicts]}


def _media_suffixes(kind: ShardType) -> dict[str, str]:
    """Map a unique file suffix to each media column: the plain one, or with the column where two share it."""
    suffixes = list(kind.media.values())
    return {
        suffix if suffixes.count(suffix) == 1 else f"{column}.{suffix}": column for column, suffix in kind.media.items()
    }


def _sample(record: Record, kind: ShardType, plain: Callable[[Columns], Columns], number: int) -> Members:
    key = f"{number:09d}_{record.id}"
    held: dict[str, bytes] = {"json": canonical_json(_describe(record, kind, plain)).encode()}
    text = next((value for value in record.payload.values() if isinstance(value, str)), None)
    if text is not None and kind.media:
        held["txt"] = text.encode()
    for suffix, column in _media_suffixes(kind).items():
        held[suffix] = record.payload[column] or b""
    return [(f"{key}.{suffix}", data) for suffix, data in sorted(held.items())]


def _tars(samples: Iterator[Members]) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Cut samples into tars by size and count; each inner iterator must be used up before the next is asked for."""
    ahead = next(samples, None)

    def one_tar() -> Iterator[tuple[str, bytes]]:
        nonlocal ahead
        size = count = 0
        while ahead is not None and (count == 0 or (size < TAR_BYTES and count < TAR_SAMPLES)):
            yield from ahead
            size += sum(len(data) for _, data in ahead)
            count += 1
            ahead = next(samples, None)

    while ahead is not None:
        yield one_tar()
