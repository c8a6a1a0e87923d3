"""Pack all questions of a picture into one sequence, so that the picture is read once.

A question sees the picture and itself, never another question, and its positions go on from the picture: to the model
it is as if it stood alone. Shapes: B sequences, T tokens, P patches of a picture, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tools.bases.vlm_model import BOS, EOS, IMAGE
from tools.bases.vlm_world import SIDE, Example, Turn

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label of a token that the loss leaves out
PICTURE = 0  # the segment that every other one sees
ROOM = 128  # tokens for the questions of a picture, about eight: rows of one length waste nothing on padding


def to_pixel_values(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Scale B x height x width x 3 bytes to -1..1, as the processor does, channels first."""
    import torch

    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def pack(tokenizer: Any, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Turn examples into the model's arguments; the loss counts answers and their end only."""
    import torch

    start = tokenizer.encode(f"{BOS}USER: {IMAGE * SIDE**2}", add_special_tokens=False)
    rows = [_row(tokenizer, start, example.turns) for example in examples]
    longest = max(len(ids) for ids, *_ in rows)
    fillers = (tokenizer.pad_token_id, IGNORED, 0, -1)
    ids_BT, labels_BT, positions_BT, segments_BT = (
        torch.tensor([row[column] + [filler] * (longest - len(row[column])) for row in rows])
        for column, filler in enumerate(fillers)
    )
    sees_own_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    sees_BTT = (sees_own_BTT | (segments_BT == PICTURE)[:, None, :]).tril()
    return {
        "input_ids": ids_BT,
        "labels": labels_BT,
        "position_ids": positions_BT,
        "attention_mask": sees_BTT[:, None],
        "pixel_values": to_pixel_values(np.stack([example.pixels for example in examples])),
    }


def patch_words(tokenizer: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Spread each patch's probability evenly over the tokens of its name: B x P x V."""
    import torch

    words_BPV = torch.zeros(len(examples), SIDE**2, len(tokenizer))
    for words_PV, example in zip(words_BPV, examples, strict=True):
        tokens_of = {
            name: tokenizer.encode(f" {name}", add_special_tokens=False) for name in dict.fromkeys(example.names_P)
        }
        for words_V, name in zip(words_PV, example.names_P, strict=True):
            words_V[tokens_of[name]] = 1 / len(tokens_of[name])
    return words_BPV


def _row(tokenizer: Any, start: list[int], turns: Sequence[Turn]) -> tuple[list[int], ...]:
    """Lay out one sequence: token ids, labels, positions and segments."""
    ids, labels = list(start), [IGNORED] * len(start)
    positions, segments = list(range(len(start))), [PICTURE] * len(start)
    for segment, turn in enumerate(turns, PICTURE + 1):
        question = tokenizer.encode(f"\n{turn.question} ASSISTANT:", add_special_tokens=False)
        answer = tokenizer.encode(f" {turn.answer}{EOS}", add_special_tokens=False)
        count = len(question) + len(answer)
        if len(ids) + count > len(start) + ROOM:
            continue
        ids += question + answer
        labels += [IGNORED] * len(question) + answer
        positions += range(len(start), len(start) + count)
        segments += [segment] * count
    return ids, labels, positions, segments
