"""The dataset card: `README.md` of a run directory, with the YAML head that `datasets` and the Hub read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tercet.errors import CorruptError
from tercet.files import write_atomically
from tercet.randomness import canonical_json
from tercet.store.shards import shard_paths
from tercet.store.summary import read_summary

CARD_NAME = "README.md"
LOOKED_AT = 4096  # records whose lineage is read per shard: a modality has few models


def write_card(run_dir: str | Path) -> Path:
    """Write the dataset card of a run and return its path.

    Raises:
        StoreError: the folder holds no run, or can't be written.
        CorruptError: a shard can't be read.
    """
    run_dir = Path(run_dir)
    summary = read_summary(run_dir)
    head = yaml.safe_dump(_head(run_dir, summary), sort_keys=False, allow_unicode=True)
    body = "\n".join(_body(run_dir, summary))
    path = run_dir / CARD_NAME
    write_atomically(path, f"---\n{head}---\n\n{body}\n".encode())
    return path


def _head(run_dir: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    configs = []
    for modality in summary["modalities"]:
        splits = sorted({path.parent.name for path in shard_paths(run_dir, modality)})
        # a split's name is a word for `datasets`: it takes no hyphens
        files = [{"split": s.replace("-", "_"), "path": f"shards/{modality}/{s}/*.parquet"} for s in splits]
        if files:
            configs.append({"config_name": modality, "data_files": files})
    number = sum(counts["accepted"] for counts in summary["modalities"].values())
    return {"pretty_name": summary["name"], "tags": ["synthetic", "tercet"], "size_categories": [_size(number)]} | (
        {"configs": configs} if configs else {}
    )


def _size(number: int) -> str:
    for limit, word in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if number < limit:
            return word
    return "n>1M"


def _body(run_dir: Path, summary: Mapping[str, Any]) -> Iterator[str]:
    modalities = summary["modalities"]
    yield f"# {plain(summary['name'])}"
    yield ""
    yield (
        "Synthetic training data made by tercet from one recipe (`recipe.yaml` beside this file, digest "
        f"`{summary['recipe_digest']}`). The run is {summary['state']}."
    )
    yield from ("", "## Counts", "", "| modality | split | records |", "|---|---|---:|")
    for name, counts in modalities.items():
        yield from (f"| {name} | {split} | {number:,} |" for split, number in counts["splits"].items())
    yield from ("", "## How it was made", "")
    for name, counts in modalities.items():
        yield (
            f"- {name}: {counts['planned']:,} planned, {counts['made']:,} made, {counts['failed']:,} failed, "
            f"{counts['rejected']:,} rejected by gates, {counts['accepted']:,} accepted"
        )
        for gate, reason, number in counts["reasons"][:5]:
            yield f"  - {gate}: {plain(reason)} ({number:,})"
    yield from ("", "Each row's `lineage` names its item, generator, model, seed and parameters; `verdicts` its gates.")
    yield from ("", "## Models, licences and terms", "", "| modality | model | licence | output may be used | digest |")
    yield "|---|---|---|---|---|"
    for name in modalities:
        for model in models_of(run_dir, name):
            cells = [plain(str(model.get(key, ""))) for key in ("reference", "licence", "output_terms", "digest")]
            yield f"| {name} | {' | '.join(cells)} |"
    yield from (
        "",
        "## Limits",
        "",
        "The records are synthetic: they hold what the recipe's plan asked for, in the voices, words and shapes of the "
        "models above, and say nothing about how often any of it occurs in the world. Judge what is trained on them on "
        "real data (`tercet eval` with `evaluate.general`). Rejected records lie in `rejects/` with their reasons and "
        "belong to no split.",
    )


def models_of(run_dir: Path, modality: str) -> list[dict[str, Any]]:
    """List the distinct models of a modality's accepted records."""
    found: dict[str, dict[str, Any]] = {}
    for path in shard_paths(run_dir, modality):
        try:
            with pq.ParquetFile(path) as file:
                batch = next(file.iter_batches(batch_size=LOOKED_AT, columns=["lineage"]), None)
        except (pa.ArrowException, OSError) as error:
            raise CorruptError(
                f"shard {path} can't be read: {error}; make the data again: tercet run --fresh"
            ) from error
        for text in batch.column(0).to_pylist() if batch is not None else ():
            model = json.loads(text).get("model")
            if model:
                found[canonical_json(model)] = model
    return [found[key] for key in sorted(found)]


def plain(text: str) -> str:
    """Keep a user's or model's words from being Markdown or HTML, and on one line."""
    flat = " ".join(text.split())
    for character in "\\`*_{}[]<>|#":
        flat = flat.replace(character, "\\" + character)
    return flat
