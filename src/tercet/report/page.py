"""Compose the HTML pages: a run's report, and a preview. One file each, no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from tercet.errors import StoreError
from tercet.evaluate.layout import say_confidence
from tercet.files import write_atomically
from tercet.modality import Shown
from tercet.report.figures import Grid, Step, funnel, grid
from tercet.report.lineage import lineage_of
from tercet.report.proof import read_proof
from tercet.report.samples import Sample, accepted_samples, body_of, rejected_samples, say_verdict, show_payload
from tercet.store.summary import read_summary

if TYPE_CHECKING:
    from tercet.pipeline.preview import Previewed

REPORT_NAME = "report.html"
ACCEPTED_SHOWN = 6
REJECTED_SHOWN = 3
TOP_REASONS = 12
HUES = (254, 172, 38, 320, 96, 210)  # of the modalities' colours, in alphabetical order


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` of a run, finished or not, and return its path.

    Raises:
        StoreError: the folder holds no run, or can't be written.
        CorruptError: a shard, the journal or `evaluation.json` is damaged.
    """
    run_dir = Path(run_dir)
    summary = read_summary(run_dir)
    modalities = [
        _modality_view(
            run_dir, name, counts, HUES[position % len(HUES)], is_over=summary["state"] in {"done", "failed"}
        )
        for position, (name, counts) in enumerate(summary["modalities"].items())
    ]
    proof = read_proof(run_dir)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            modalities=modalities,
            proof=proof,
            curve=_curve(run_dir),
            chains=lineage_of(run_dir, list(summary["modalities"]), proof),
            hues={one["name"]: one["hue"] for one in modalities},
            recipe=_read_recipe(run_dir),
            spend={kind: value for kind, value in summary["spend"].items() if value},
            accepted=sum(counts["accepted"] for counts in summary["modalities"].values()),
            made=sum(counts["made"] for counts in summary["modalities"].values()),
            planned=sum(counts["planned"] for counts in summary["modalities"].values()),
        )
    )
    path = run_dir / REPORT_NAME
    write_atomically(path, page.encode())
    return path


def _curve(run_dir: Path) -> str:
    """Give the training's picture as a data URI, which runs no script; empty where nothing was trained."""
    try:
        picture = (run_dir / "training" / "curve.svg").read_bytes()
    except OSError:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"


def write_preview(name: str, previewed: Mapping[str, Sequence[Previewed]], path: Path) -> Path:
    """Write a page with the records of a preview, and return its path."""
    shown = []
    for position, (modality, records) in enumerate(previewed.items()):
        samples = [_preview_sample(modality, record) for record in records]
        shown.append({"name": modality, "hue": HUES[position % len(HUES)], "samples": samples})
    page = _environment().get_template("preview.html.j2").render(name=name, modalities=shown)
    return _write_page(path, page)


def write_tried(name: str, answers: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write a page with what `try_recipe` returned, and return its path.

    Raises:
        StoreError: it can't be written.
    """
    return _write_page(path, _environment().get_template("tried.html.j2").render(name=name, answers=answers))


def _write_page(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: can't be made: {error.strerror}; give another --out") from error
    write_atomically(path, page.encode())
    return path


def _preview_sample(modality: str, record: Previewed) -> Sample:
    reason = next((say_verdict(verdict) for verdict in record.verdicts if not verdict.passed), "")
    if record.failure is not None:
        reason = f"{record.failure.stage}: {record.failure.error}: {record.failure.message}"
    item = record.item
    if record.payload is None:
        return Sample(item.key, item.split, item.generator, "", Markup(""), reason)
    shown = show_payload(modality, record.payload)
    return Sample(item.key, item.split, item.generator, shown.text, body_of(shown), reason, record.verdicts)


def _modality_view(run_dir: Path, name: str, counts: Mapping[str, Any], hue: int, *, is_over: bool) -> dict[str, Any]:
    steps: list[Step] = funnel(name, counts)
    cells: Grid | None = grid(counts["cells"], is_over=is_over)
    rejected = counts["rejected"] or 1
    return {
        **counts,
        "name": name,
        "hue": hue,
        "funnel": steps,
        "grid": cells,
        "top": [(gate, reason, number, number / rejected) for gate, reason, number in counts["reasons"][:TOP_REASONS]],
        "more_reasons": max(len(counts["reasons"]) - TOP_REASONS, 0),
        "samples": accepted_samples(run_dir, name, ACCEPTED_SHOWN),
        "rejects": rejected_samples(run_dir, name, REJECTED_SHOWN),
        "kept": counts["accepted"] / counts["made"] if counts["made"] else None,
    }


def _read_recipe(run_dir: Path) -> str:
    try:
        return (run_dir / "recipe.yaml").read_text(encoding="utf-8")
    except OSError:
        return ""  # a run that was copied without it still has its report


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        thousands=lambda number: f"{number:,.10g}",
        percent=lambda share: f"{share:.0%}",
        confidence=say_confidence,
        signed=_signed,
        seen=_seen,
    )
    return environment


def _seen(example: Mapping[str, Any], side: str) -> str:
    """Give one side of an example of the evaluation: as its task shows it, else its text."""
    shown = example.get("html", {}).get(side)
    return body_of(Shown(example[side], shown)) if shown else str(example[side])


def _signed(number: float) -> str:
    """Write a change with a true minus sign."""
    return f"{number:+.1f}".replace("-", "−")
