"""Several dialogs in one row, each computed as if it stood alone, and what they begin with only once.

Dialogs of a set begin alike: by the same system message and tools. In a row such a head stands once, and every dialog
after it sees the head and itself, at the positions it would have alone. That is the same arithmetic for fewer tokens:
a support dialog of 260 tokens has a head of 170.

T: tokens of the longest row, B: rows, N: labels.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tercet_text.causal_lm_attention import Segment

if TYPE_CHECKING:
    import torch

    from tercet_text.causal_lm_chat import Tokens

BUCKET = 256  # dialogs that are packed together: enough to fill rows, few enough that a pass stays shuffled


@dataclass(frozen=True, slots=True)
class Dialog:
    """A dialog to pack, or a piece of one: its record, its tokens, and the beginning that it shares with others."""

    record: str
    tokens: Tokens
    beginning: str


@dataclass(frozen=True, slots=True)
class Pack:
    """One row: for each beginning, its tokens' number and the dialogs (by number) that share it."""

    blocks: tuple[tuple[int, tuple[int, ...]], ...]
    size: int

    @property
    def dialogs(self) -> list[int]:
        """List the dialogs in the row's order."""
        return [number for _, numbers in self.blocks for number in numbers]


def shared_heads(dialogs: Sequence[Dialog]) -> dict[str, int]:
    """Count the tokens that all dialogs of a beginning share, less than any of them has before its first label."""
    heads: dict[str, int] = {}
    leaders: dict[str, Dialog] = {}
    for dialog in dialogs:
        leader = leaders.setdefault(dialog.beginning, dialog)
        ids, most = dialog.tokens.ids, min(len(dialog.tokens.ids) - 1, *dialog.tokens.counted[:1])
        most = min(most, heads.get(dialog.beginning, most))
        same = next((at for at in range(most) if ids[at] != leader.tokens.ids[at]), most)
        heads[dialog.beginning] = same
    return heads


def pack(dialogs: Sequence[Dialog], order: Sequence[int], heads: Mapping[str, int], most: int, seed: str) -> list[Pack]:
    """Pack the dialogs of a pass, shuffled, into rows of at most `most` tokens, each where it fits best.

    A dialog that is longer is a row of its own. Longest first would put dialogs alike into a row, and fill no more:
    98 of 100 tokens either way for support dialogs, 98 against 100 for longer ones.
    """
    packs: list[Pack] = []
    shuffled = list(order)
    random.Random(seed).shuffle(shuffled)
    for start in range(0, len(shuffled), BUCKET):
        packs += _pack_bucket(dialogs, shuffled[start : start + BUCKET], heads, most)
    return packs


def _pack_bucket(dialogs: Sequence[Dialog], chosen: Sequence[int], heads: Mapping[str, int], most: int) -> list[Pack]:
    rows: list[dict[str, list[int]]] = []
    sizes: list[int] = []
    for number in chosen:
        beginning, whole = dialogs[number].beginning, len(dialogs[number].tokens.ids)
        costs = [whole - heads[beginning] if beginning in row else whole for row in rows]
        fitting = [at for at, cost in enumerate(costs) if sizes[at] + cost <= most]
        if fitting:
            best = min(fitting, key=lambda at: (costs[at], -sizes[at]))
        else:
            best = len(rows)
            rows.append({})
            sizes.append(0)
            costs.append(whole)
        rows[best].setdefault(beginning, []).append(number)
        sizes[best] += costs[best]
    return [
        Pack(tuple((heads[beginning], tuple(numbers)) for beginning, numbers in row.items()), size)
        for row, size in zip(rows, sizes, strict=True)
    ]


class Layout:
    """One row laid out: per token its id, position, block and dialog; per label its source and target."""

    def __init__(self, row: Pack, dialogs: Sequence[Dialog]) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.blocks: list[int] = []
        self.dialogs: list[int] = []  # 0 for a head's tokens: all dialogs of the block see them
        self.sources: list[int] = []  # the place whose output predicts the label
        self.targets: list[int] = []
        self.segments: list[Segment] = []
        for block, (head, numbers) in enumerate(row.blocks, 1):
            first = len(self.ids)
            self._add(dialogs[numbers[0]].tokens.ids[:head], 0, block, 0)
            if head:
                self.segments.append((first, first + head, first, 0))
            for at, number in enumerate(numbers, 1):
                tokens = dialogs[number].tokens
                shift = len(self.ids) - head  # from a place in the dialog to one in the row
                self._add(tokens.ids[head:], head, block, at)
                self.segments.append((shift + head, len(self.ids), first, head))
                for place in tokens.counted:
                    self.sources.append(first + head - 1 if place == head else shift + place - 1)
                    self.targets.append(tokens.ids[place])

    def _add(self, ids: Sequence[int], position: int, block: int, dialog: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.blocks += [block] * len(ids)
        self.dialogs += [dialog] * len(ids)


def batch(layouts: Sequence[Layout], device: torch.device) -> dict[str, Any]:
    """Make tensors of rows: ids_BT, positions_BT, mask_B1TT (True where a token sees another), sources_N, targets_N.

    `segments` says by rows what the mask says, for an attention that can skip what is hidden.
    """
    import torch

    longest = max(len(layout.ids) for layout in layouts)

    def filled(name: str) -> torch.Tensor:
        rows = [getattr(layout, name) for layout in layouts]
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)

    segments = [
        [*one.segments, *([(len(one.ids), longest, 0, 0)] if len(one.ids) < longest else [])] for one in layouts
    ]
    sources = [at * longest + place for at, layout in enumerate(layouts) for place in layout.sources]
    return {
        "ids_BT": filled("ids"),
        "positions_BT": filled("positions"),
        "mask_B1TT": visible(filled("blocks"), filled("dialogs")),
        "segments": segments if device.type == "cpu" else None,
        "sources_N": torch.tensor(sources, device=device),
        "targets_N": torch.tensor([token for layout in layouts for token in layout.targets], device=device),
    }


def visible(blocks_BT: torch.Tensor, dialogs_BT: torch.Tensor) -> torch.Tensor:
    """Say which token sees which: none that comes later, and of its own block the head and its own dialog.

    Padding is a block of its own, so that each of its tokens sees one at least: softmax over nothing is no number.
    """
    import torch

    size = blocks_BT.shape[1]
    earlier_TT = torch.ones(size, size, dtype=torch.bool, device=blocks_BT.device).tril()
    same_block = blocks_BT[:, :, None] == blocks_BT[:, None, :]
    seen = (dialogs_BT[:, None, :] == 0) | (dialogs_BT[:, :, None] == dialogs_BT[:, None, :])
    return (earlier_TT & same_block & seen)[:, None]
