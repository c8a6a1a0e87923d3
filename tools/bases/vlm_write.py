"""Write the base as a standard transformers folder, measure what was written, and say so in its card."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bases.vlm_measure import Score, measure
from tools.bases.vlm_world import SCENES

MEASURED, MEASURED_TRAINED = 300, 100  # pictures of held-out pairs and of trained ones, up to three questions each
LOG_ROWS = 60
FLOOR, LEAD = 0.60, 0.20  # of held-out accuracy, and of what the picture adds to it
CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# A small vision-language base for rendered scenes

It answers short English questions about 64 px pictures of coloured shapes, and describes them. It is a base to try
adapters on: small enough for a CPU, and good at nothing else.

- Architecture: `LlavaForConditionalGeneration`: SigLIP vision tower (4 layers of 128, 8 px patches, 64 tokens a
  picture), Llama (4 layers of 192), {parameters:,} parameters, stored in fp16.
- Tokenizer: byte-level BPE, {vocabulary} tokens; each word of its world is one token, others fall into known pieces.
- Weights: `model.safetensors`, {megabytes:.1f} MB, SHA-256 `{digest}`.
- Licence: Apache-2.0.

## Trained on

Pictures by `tercet_image.renderer.draw_scene` at 64 px of scenes by `tercet_image.plan.Scenes`, one to three objects,
with the questions of `tercet_image.caption.questions`, captions, and made-up words to repeat, which train the tokens
that no scene uses. No other picture, text or weight. The vision tower first learned what each patch shows, in colours
drawn at random that have no names; then each patch's output was drawn towards its words. Held out were
{held_out}:
no training picture shows one of these pairs, no training question names one.

Commands, at commit {commit}, {minutes:.0f} minutes by the clock on a share of a busy CPU core:

    python -m tools.bases.train_vlm --work runs/scenes_vlm
    python -m tools.bases.train_vlm --work runs/scenes_vlm --write modalities/tercet_image/bases/scenes_vlm

## Measured

Greedy answers decoded from the stored fp16 weights, computed in fp32; a hit is the exact text. Up to three questions a
picture; intervals are of 95% and resample pictures. Blind: the same questions with every pixel value 0. Shuffled: with
another question's picture. Commonest: each kind's commonest answer, whatever the picture. The course of the training
was chosen by its answers about 50 other pictures of the same pairs.

{measured} new pictures of held-out pairs:

{held_out_table}

{measured_trained} new pictures of pairs that were trained on:

{trained_table}

The floor of {floor:.0%}, {lead:.0%} above the best answers without the picture, on held-out pairs: {verdict}.

## Use

```python
from transformers import AutoProcessor, LlavaForConditionalGeneration

processor = AutoProcessor.from_pretrained(folder)
model = LlavaForConditionalGeneration.from_pretrained(folder)
turn = {{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": "What colour is the star?"}}]}}
prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
inputs = processor(images=picture, text=prompt, return_tensors="pt")
generated = model.generate(**inputs, max_new_tokens=12, do_sample=False)
print(processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
```

## Limits

It names backgrounds and counts well; it often mixes up which object has which colour or shape, and on presence and
relation it is near guessing: look at the rows, not at the total. It knows the shapes, colours, sizes and relations of
tercet's default scenes in these questions' own words, one question a picture. It has seen
no photograph, no lettering and no free text. Larger pictures are made 64 px small.
"""


def write_base(model: Any, processor: Any, folder: Path, log: Path, commit: str) -> None:
    """Write weights, processor, log and card into `folder`; the card's figures come from the written files."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    save_folder(model, processor, folder)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    (folder / "training-log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thinned(rows)))
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    held_out = measure(model, processor, MEASURED, are_held_out=True)
    trained = measure(model, processor, MEASURED_TRAINED, are_held_out=False)
    weights = (folder / "model.safetensors").read_bytes()
    card = CARD.format(
        floor=FLOOR, lead=LEAD, verdict=verdict(held_out[0]), parameters=model.num_parameters(),
        vocabulary=len(processor.tokenizer), megabytes=len(weights) / 1e6,
        digest=hashlib.sha256(weights).hexdigest(), commit=commit, minutes=minutes(rows), measured=MEASURED,
        measured_trained=MEASURED_TRAINED,
        held_out=", ".join(" ".join(pair) for pair in sorted(SCENES.held_out)),
        held_out_table=table(held_out), trained_table=table(trained),
    )  # fmt: skip
    (folder / "README.md").write_text(card)
    print(card)


def save_folder(model: Any, processor: Any, folder: Path) -> None:
    """Save fp16 weights whose config says float32, so that loading computes in float32 on a CPU."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text().replace('"float16"', '"float32"'))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor.save_pretrained(folder)


def thinned(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep about `LOG_ROWS` rows of the log, the last among them."""
    every = max(1, len(rows) // LOG_ROWS)
    return [row for at, row in enumerate(rows, 1) if at % every == 0 or at == len(rows)]


def minutes(rows: Sequence[dict[str, Any]]) -> float:
    """Add up what the processes of a training took; `seconds` starts again with each process and stage."""
    ends = [row for row, after in zip(rows, [*rows[1:], None], strict=True) if _is_end(row, after)]
    return sum(float(row["seconds"]) for row in ends) / 60


def _is_end(row: dict[str, Any], after: dict[str, Any] | None) -> bool:
    return after is None or after["seconds"] < row["seconds"]


def table(scores: Sequence[Score]) -> str:
    """Lay scores out as Markdown."""
    lines = ["| questions | n | accuracy | 95% | blind | shuffled | commonest |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {one.kind} | {one.asked} | {one.accuracy:.1%} | {one.low:.1%} to {one.high:.1%} | {one.blind:.1%} "
        f"| {one.shuffled:.1%} | {one.commonest:.1%} |"
        for one in scores
    ]
    return "\n".join(lines)


def verdict(score: Score) -> str:
    """Say whether the base holds the floor."""
    blind = max(score.blind, score.commonest)
    holds = score.accuracy >= FLOOR and score.accuracy - blind >= LEAD
    return f"{'held' if holds else 'MISSED'}, with {score.accuracy:.1%} against {blind:.1%} without the picture"


def commit_here() -> str:
    """Name the commit that the tree stands at."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return found.stdout.strip()
