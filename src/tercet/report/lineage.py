"""The way of one record, from the recipe to the decision: what the page draws as a chain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.records import Record
from tercet.report.proof import Proof
from tercet.report.samples import first_record, say_verdict, show_payload

ADAPTER_FILE = "adapter_config.json"


@dataclass(frozen=True)
class Link:
    """One station of a record's way: what it is, its name, and facts about it."""

    kind: str
    name: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Chain:
    """The whole way of one record."""

    modality: str
    record: str
    text: str
    links: tuple[Link, ...]


def lineage_of(run_dir: Path, modalities: Sequence[str], proof: Proof | None) -> list[Chain]:
    """Draw one accepted record of each modality; none where nothing was accepted."""
    chains = []
    for modality in modalities:
        found = first_record(run_dir, modality)
        if found is not None:
            path, record = found
            links = (*_made(record), *_kept(run_dir, path, record), *_used(run_dir, proof))
            chains.append(Chain(modality, record.id, show_payload(modality, record.payload).text, links))
    return chains


def _made(record: Record) -> list[Link]:
    lineage = record.lineage
    model: Mapping[str, Any] = lineage.get("model") or {}
    terms = [(name, str(model[name])) for name in ("licence", "output_terms") if model.get(name)]
    parameters = [(name, _short(value)) for name, value in (lineage.get("parameters") or {}).items()][:6]
    links = [
        Link("recipe", _head(lineage.get("recipe"))),
        Link("item", _head(record.item_key), (("split", record.split), ("seed", str(lineage.get("seed", ""))))),
    ]
    links += [Link("parent", _head(parent)) for parent in (lineage.get("parents") or [])[:3]]
    links.append(
        Link(
            "generator",
            str(lineage.get("generator", "")),
            (("model", str(model.get("reference", ""))), ("digest", _head(model.get("digest"))), *terms, *parameters),
        )
    )
    return links


def _kept(run_dir: Path, path: Path, record: Record) -> list[Link]:
    verdicts = tuple(("passed" if verdict.passed else "failed", say_verdict(verdict)) for verdict in record.verdicts)
    return [
        Link("gates", f"{len(verdicts)} passed" if verdicts else "none", verdicts),
        Link("record", _head(record.id)),
        Link("shard", path.relative_to(run_dir).as_posix()),
    ]


def _used(run_dir: Path, proof: Proof | None) -> list[Link]:
    """Name what was trained on the run, if anything was."""
    adapters = sorted((run_dir / "adapters").glob(f"**/{ADAPTER_FILE}"))
    links = []
    for path in adapters[:1]:
        facts = json.loads(path.read_bytes())
        base = str(facts.get("base_model_name_or_path") or "")
        shown = (("rank", str(facts.get("r", ""))), *((("base", _head(Path(base).name, 40)),) if base else ()))
        links.append(Link("adapter", path.parent.relative_to(run_dir).as_posix(), shown))
    if links and proof is not None:
        primary = proof.primary
        lift = ((primary.name, f"{primary.base:.1f} → {primary.tuned:.1f}"),) if primary else ()
        links.append(Link("decision", proof.verdict, lift))
    return links


def _head(value: object, characters: int = 12) -> str:
    said = str(value or "unknown")
    return said if len(said) <= characters else f"{said[:characters]}…"


def _short(value: object) -> str:
    return _head(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 48)
