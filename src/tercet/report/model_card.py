"""The model card: `README.md` of an adapter's folder in the Hub's format: what it came from and what it can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tercet.evaluate.layout import metrics_in_order, rates_of, say_confidence, suites_in_order
from tercet.files import write_atomically
from tercet.models.resolve import AUTO
from tercet.report.card import CARD_NAME, models_of, plain

SHOWN_SETTINGS = ("steps", "learning_rate", "schedule", "micro_batch", "budget", "accumulate", "replay", "precision",
                  "data_fraction", "real_fraction")  # fmt: skip


def write_model_card(
    run_dir: Path, folder: Path, card: Mapping[str, Any], modality: str, pipeline_tag: str, evaluation: Any = None
) -> Path:
    """Write the card of the adapter in `folder`, and return its path.

    `card` is its `tercet.json`, `modality` the one whose records it was trained on, `evaluation` what `evaluation.json`
    holds, if it was judged. Raises as `write_card` does.
    """
    head = yaml.safe_dump(_head(card, pipeline_tag, folder.name, evaluation), sort_keys=False, allow_unicode=True)
    models = models_of(run_dir, modality)
    body = "\n".join((*_origin(card, folder.name, models), *_figures(evaluation), *_limits(card, evaluation)))
    path = folder / CARD_NAME
    write_atomically(path, f"---\n{head}---\n\n{body}\n".encode())
    return path


def _head(card: Mapping[str, Any], pipeline_tag: str, name: str, evaluation: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"library_name": "peft", "tags": ["lora", "tercet", "synthetic-data"]}
    if card.get("base_licence"):
        head["license"] = str(card["base_licence"]).lower()
    if pipeline_tag:
        head["pipeline_tag"] = pipeline_tag
    if base := on_hub(str(card["base"])):
        head |= {"base_model": base, "base_model_relation": "adapter"}
    if evaluation and pipeline_tag:
        results = [
            {
                "task": {"type": pipeline_tag},
                "dataset": {"name": suite["title"], "type": "synthetic"},
                "metrics": [{"type": suite["leading"], "value": round(suite["metrics"][suite["leading"]]["tuned"], 2)}],
            }
            for _, suite in suites_in_order(evaluation)
            if suite["leading"] in suite["metrics"]
        ]
        head["model-index"] = [{"name": name, "results": results}]
    return head


def on_hub(reference: str) -> str:
    """Name a base as the Hub does; empty where it isn't known to be there."""
    scheme, _, name = reference.partition(":")
    if scheme == "hf":
        return name.partition("@")[0]
    packages = {package: hub for hub, package in AUTO.values()}
    return packages.get(name, "") if scheme == "pkg" else ""


def _origin(card: Mapping[str, Any], name: str, models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    train = card.get("train", {})
    adapter = train.get("adapter", {})
    kinds = [word for word, key in (("rsLoRA", "rslora"), ("DoRA", "dora")) if adapter.get(key)] or ["LoRA"]
    yield f"# {plain(name)}"
    yield ""
    yield (
        f"A {' and '.join(kinds)} adapter of rank {adapter.get('rank')} for {plain(str(card['base']))} (task "
        f"{plain(str(card.get('task')))}), trained by tercet {plain(str(card.get('tercet')))} on synthetic records. "
        f"Loads in plain PEFT: `PeftModel.from_pretrained(base, folder)`; its scale is {card.get('scale', 1.0):g}, "
        "folded into the weights."
    )
    yield from ("", "## Intended use", "")
    yield (
        "The vocabulary, documents or scenes of the recipe that it was trained on, together with the base above and no "
        "other one. What it does elsewhere is what the general sets below show, and nothing more."
    )
    yield from ("", "## Lineage", "", "| what | digest or name |", "|---|---|")
    for what, key in (("base", "base"), ("base's weights", "base_digest"), ("base's licence", "base_licence"),
                      ("recipe", "recipe"), ("records", "records"), ("seed", "seed"),
                      ("adapter's weights", "weights")):  # fmt: skip
        yield f"| {what} | {plain(str(card.get(key, '')))} |"
    shown = [f"{key} {train[key]}" for key in SHOWN_SETTINGS if train.get(key) is not None]
    if card.get("kept_step", train.get("steps")) != train.get("steps"):
        shown.append(f"the adapter of step {card['kept_step']}, which decoded best")
    yield f"| training | {plain(', '.join(shown))} |"
    yield from ("", "What made its records:", "", "| model | licence | output may be used |", "|---|---|---|")
    for model in models:
        yield f"| {' | '.join(plain(str(model.get(key, ''))) for key in ('reference', 'licence', 'output_terms'))} |"


def _figures(evaluation: Any) -> Iterator[str]:
    yield from ("", "## Figures", "")
    if not evaluation:
        yield "It hasn't been judged yet: `tercet eval` compares it with its base and writes the figures here."
        return
    confidence = say_confidence(evaluation["confidence"])
    yield (
        f"Base against adapter on the same frozen examples, decoded; lower is better; {confidence} intervals by the "
        "paired bootstrap over sources. `detects` is the smallest change that the set could have shown."
    )
    yield from ("", f"| set | metric | base | tuned | change ({confidence} interval) | items | sources | detects |")
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for _, suite in suites_in_order(evaluation):
        for metric, held in metrics_in_order(suite):
            change = f"{held['change']:+.2f} ({held['low']:+.2f} to {held['high']:+.2f})"
            yield (
                f"| {plain(suite['title'])} | {plain(metric)} | {held['base']:.2f} | {held['tuned']:.2f} | {change} "
                f"| {held['items']:,} | {held['sources']:,} | {held['detectable']:.2f} |"
            )
    rates = [(plain(suite["title"]), *found) for _, suite in suites_in_order(evaluation) for found in rates_of(suite)]
    if rates:
        yield from ("", "Plain rates, without intervals; of these a higher one may be the better (recall):", "")
        yield from ("| set | rate | base | tuned |", "|---|---|---:|---:|")
        yield from (f"| {title} | {plain(name)} | {base:.2f} | {tuned:.2f} |" for title, name, base, tuned in rates)
    yield from ("", f"Decision: **{evaluation['decision']['verdict']}**", "")
    yield from (f"- {plain(reason)}" for reason in evaluation["decision"]["reasons"])


def _limits(card: Mapping[str, Any], evaluation: Any) -> Iterator[str]:
    yield from ("", "## Limits", "")
    yield (
        "- It was trained on synthetic records alone, unless its recipe brought examples: it knows what their plan "
        "asked for, in the voices, words and shapes of the models above."
    )
    few = [suite["title"] for _, suite in suites_in_order(evaluation) if _is_few(suite)] if evaluation else []
    if few:
        yield f"- Too few sources for an interval to mean much: {plain(', '.join(few))}."
    if evaluation:
        yield "- A change smaller than `detects` may be there and not have been seen."
    licence = plain(str(card.get("base_licence") or "unknown"))
    yield f"- Its terms are those of its base ({licence}) and of the models above."


def _is_few(suite: Mapping[str, Any]) -> bool:
    held = suite["metrics"].get(suite["leading"])
    return bool(held and held["few"])
