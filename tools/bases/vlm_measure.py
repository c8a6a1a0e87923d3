"""Measure the base by its decoded answers: on pictures, on no picture, and on another question's picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tools.bases.vlm_world import SEED, Example, Turn, is_of_first_pair, unseen_examples

BATCH = 64
RESAMPLES = 2000
LONGEST_ANSWER = 12  # tokens; the longest answer has three


@dataclass(frozen=True)
class Score:
    """Accuracy of one kind of question: exact matches of `asked`, with a 95% interval that resamples pictures."""

    kind: str
    asked: int
    accuracy: float
    low: float
    high: float
    blind: float
    shuffled: float
    commonest: float  # of a model that gives each kind's commonest answer


def measure(model: Any, processor: Any, count: int, *, are_held_out: bool) -> list[Score]:
    """Score every kind of question about `count` unseen pictures, and all together."""
    examples = unseen_examples(count, are_held_out=are_held_out)
    asked = [(example, turn) for example in examples for turn in example.turns]
    right = is_right(model, processor, asked)
    blind = is_right(model, processor, asked, blind=True)
    others = {example.number: other for example, other in zip(examples, [*examples[1:], examples[0]], strict=True)}
    shuffled = is_right(model, processor, [(others[example.number], turn) for example, turn in asked])
    commonest = _is_commonest([turn for _, turn in asked])
    picture = np.array([example.number for example, _ in asked])
    rows: list[tuple[str, Callable[[Example, Turn], bool]]] = [("all", lambda *_: True)]
    rows += [(kind, _of_kind(kind)) for kind in sorted({turn.kind for _, turn in asked})]
    if are_held_out:
        rows.append(("held-out pair's colour or shape", lambda example, turn: is_of_first_pair(example.scene, turn)))
    scores = []
    for name, belongs in rows:
        chosen = np.array([belongs(example, turn) for example, turn in asked])
        low, high = interval(right[chosen], picture[chosen])
        means = (float(run[chosen].mean()) for run in (blind, shuffled, commonest))
        scores.append(Score(name, int(chosen.sum()), float(right[chosen].mean()), low, high, *means))
    return scores


def _is_commonest(turns: Sequence[Turn]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say of each question whether its answer is the commonest of its kind."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for turn in turns:
        answers[turn.kind][turn.answer] += 1
    return np.array([answers[turn.kind].most_common(1)[0][0] == turn.answer for turn in turns])


def _of_kind(kind: str) -> Callable[[Example, Turn], bool]:
    return lambda _, turn: turn.kind == kind


def is_right(
    model: Any, processor: Any, asked: Sequence[tuple[Example, Turn]], *, blind: bool = False
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Answer each question about its picture, greedily, and hold the text against the truth."""
    found: list[bool] = []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        pictures = [Image.fromarray(example.pixels) for example, _ in batch]
        answers = answer(model, processor, pictures, [turn.question for _, turn in batch], blind=blind)
        found += [text == turn.answer for text, (_, turn) in zip(answers, batch, strict=True)]
    return np.array(found)


def answer(
    model: Any, processor: Any, pictures: Sequence[Image.Image], questions: Sequence[str], *, blind: bool = False,
    longest: int = LONGEST_ANSWER,
) -> list[str]:  # fmt: skip
    """Generate the answers to one question per picture; blind, every picture is grey."""
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for question in questions
    ]
    inputs = processor(images=list(pictures), text=prompts, padding=True, return_tensors="pt")
    if blind:
        inputs["pixel_values"].zero_()
    generated = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    texts = processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def interval(
    right: np.ndarray[Any, np.dtype[np.bool_]], picture: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[float, float]:
    """Give the 95% interval of an accuracy by resampling pictures, whose questions are not independent."""
    _, place = np.unique(picture, return_inverse=True)
    asked, correct = np.bincount(place), np.bincount(place, weights=right)
    weights = np.random.default_rng(SEED).multinomial(len(asked), np.full(len(asked), 1 / len(asked)), RESAMPLES)
    low, high = np.quantile(weights @ correct / (weights @ asked), (0.025, 0.975))
    return float(low), float(high)
