"""Choose a few records of a run and show them the way their modality does."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tercet import registry
from tercet.errors import UsageError
from tercet.modality import Shown
from tercet.records import Columns, Record, Verdict
from tercet.report.sanitise import sanitise
from tercet.store.shards import read_shard, shard_paths

LOOKED_AT = 512  # rows of a shard that samples are chosen from: bounds the reading, not the run
SHOWN_BYTES = 1_500_000  # a sample with more HTML than this is shown by its text: the page stays mailable


@dataclass(frozen=True)
class Sample:
    """One record as the page shows it; `reason` says why it was rejected, empty when it was accepted."""

    id: str
    split: str
    generator: str
    text: str
    body: Markup
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()


def accepted_samples(run_dir: Path, modality: str, count: int) -> list[Sample]:
    """Show up to `count` accepted records, spread over splits and plan."""
    return [_sample(record, modality) for record in _spread(shard_paths(run_dir, modality), count)]


def rejected_samples(run_dir: Path, modality: str, count: int) -> list[Sample]:
    """Show up to `count` rejected records, of as many different reasons as there are."""
    by_reason: dict[tuple[str, str], list[Record]] = {}
    for path in sorted((run_dir / "rejects" / modality).glob("*.parquet")):
        for record in itertools.islice(read_shard(path), LOOKED_AT):
            kind = (record.verdicts[-1].gate, record.verdicts[-1].reason.split(":")[0]) if record.verdicts else ("", "")
            same = by_reason.setdefault(kind, [])
            if len(same) < count:
                same.append(record)
    rounds = itertools.zip_longest(*by_reason.values())
    chosen = [record for record in itertools.chain.from_iterable(rounds) if record is not None]
    return [_sample(record, modality) for record in chosen[:count]]


def first_record(run_dir: Path, modality: str) -> tuple[Path, Record] | None:
    """Return one accepted record and its shard, if there is any."""
    for path in shard_paths(run_dir, modality):
        for record in read_shard(path):
            return path, record
    return None


def show_payload(modality: str, payload: Columns) -> Shown:
    """Render a payload through its modality; without that plug-in's packages, as plain columns."""
    try:
        plug_in = registry.modality(modality)
        if plug_in.show:
            shown: Shown = registry.load(plug_in.show, plug_in.extra)(payload)
            return shown
    except UsageError as error:
        return _plain(payload, f"shown plainly: {error}")
    return _plain(payload, "")


def body_of(shown: Shown) -> Markup:
    """Give a shown record's HTML, made harmless and bounded."""
    if len(shown.html) > SHOWN_BYTES:
        return Markup("<p>{}</p><p><small>too large to embed here</small></p>").format(shown.text)
    return Markup(sanitise(shown.html))


def say_verdict(verdict: Verdict) -> str:
    """Write a verdict as `gate: reason (score, threshold)`."""
    numbers = [f"score {verdict.score:.3g}"] if verdict.score is not None else []
    numbers += [f"threshold {verdict.threshold:.3g}"] if verdict.threshold is not None else []
    said = f"{verdict.gate}: {verdict.reason}" if verdict.reason else verdict.gate
    return f"{said} ({', '.join(numbers)})" if numbers else said


def _sample(record: Record, modality: str) -> Sample:
    shown = show_payload(modality, record.payload)
    rejecting = next((verdict for verdict in reversed(record.verdicts) if not verdict.passed), None)
    return Sample(
        id=record.id,
        split=record.split,
        generator=str(record.lineage.get("generator", "")),
        text=shown.text,
        body=body_of(shown),
        reason=say_verdict(rejecting) if rejecting else "",
        verdicts=record.verdicts,
    )


def _spread(paths: Sequence[Path], count: int) -> Iterator[Record]:
    """Yield `count` records evenly from the shards: every split first, then along the plan."""
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        by_split.setdefault(path.parent.name, []).append(path)
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*(by_split[split] for split in sorted(by_split))))
    chosen = [path for path in rounds if path is not None][:count]
    for position, path in enumerate(chosen):
        share = count // len(chosen) + (position < count % len(chosen))
        records = list(itertools.islice(read_shard(path), LOOKED_AT))
        step = max(len(records) / share, 1)
        yield from (records[int(at * step)] for at in range(min(share, len(records))))


def _plain(payload: Columns, why: str) -> Shown:
    rows = [(name, _short(value)) for name, value in payload.items()]
    cells = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows)
    tail = f"<p><small>{html.escape(why)}</small></p>" if why else ""
    return Shown(" · ".join(f"{name}={value}" for name, value in rows), f"<dl>{cells}</dl>{tail}")


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= 200 else said[:199] + "…"
