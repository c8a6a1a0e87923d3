"""Training data of the task `causal-lm`: dialogs as tokens, packed into rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tercet.errors import NothingSurvived
from tercet.randomness import digest
from tercet.recipe import Train
from tercet.records import Record
from tercet.train.mixing import draw_pass, record_weights
from tercet.train.task import OnUnits, Row
from tercet_text.calls import chat_messages
from tercet_text.causal_lm_chat import ChatFormat, TemplateFault
from tercet_text.causal_lm_packing import Dialog, Layout, batch, pack, shared_heads
from tercet_text.lm_suites import tools_of

if TYPE_CHECKING:
    import torch

PACK_TOKENS = 1024  # of a row; a longer dialog is a row of its own
WEIGHTED_PASSES = 4  # where records come more or less often than once, several draws stand for their weights
TOLD_EVERY = 64  # dialogs


def prepare(
    form: ChatFormat,
    context: int,
    device: torch.device,
    records: Iterable[Record],
    train: Train,
    seed: int,
    on_units: OnUnits,
) -> PackedData:
    """Turn records into rows; a dialog of more than `context` tokens is left out and counted, never cut.

    Raises:
        NothingSurvived: there is no record, or none that fits.
    """
    held = list(records)
    if not held:
        raise NothingSurvived("no accepted dialog to train on; tercet report shows why they were rejected")
    dialogs, kept, left_out = _read(form, context, held, on_units)
    if not dialogs:
        said = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise NothingSurvived(
            f"none of {len(held)} dialogs can be trained on ({said}); the base's context is {context} tokens: make "
            "shorter dialogs, or name another train.base"
        )
    is_weighed = train.weights is not None or train.real_fraction is not None
    weights = record_weights(kept, train) if is_weighed else None
    most = min(context, PACK_TOKENS, int(train.budget or PACK_TOKENS))
    return PackedData(dialogs, weights, most, left_out, device, seed)


def _read(
    form: ChatFormat, context: int, records: Sequence[Record], on_units: OnUnits
) -> tuple[list[Dialog], list[Record], Mapping[str, int]]:
    dialogs: list[Dialog] = []
    kept: list[Record] = []
    left_out: Counter[str] = Counter()
    for done, record in enumerate(records, 1):
        messages, tools = chat_messages(record.payload["messages"]), tools_of(record)
        try:
            tokens = form.tokens(messages, tools)
        except TemplateFault:
            left_out["unfit_for_template"] += 1
            continue
        if len(tokens.ids) > context:
            left_out["over_context"] += 1
        elif not tokens.counted:
            left_out["without_answer"] += 1
        else:
            system = messages[0]["content"] if messages[0]["role"] == "system" else ""
            dialogs.append(Dialog(record.id, tokens, digest(system, record.payload["tools"])))
            kept.append(record)
        if done % TOLD_EVERY == 0 or done == len(records):
            on_units(done, len(records))
    return dialogs, kept, left_out


class PackedData:
    """Rows of packed dialogs; none is general, `replay` is empty."""

    replay: Sequence[Row] = ()
    padded_to = 0.0
    unit = "tokens"

    def __init__(
        self,
        dialogs: Sequence[Dialog],
        weights: Sequence[float] | None,
        most: int,
        left_out: Mapping[str, int],
        device: torch.device,
        seed: int,
    ) -> None:
        self.dialogs, self.left_out, self.device = dialogs, left_out, device
        self.heads = shared_heads(dialogs)
        passes = WEIGHTED_PASSES if weights else 1
        self.packs = [
            row
            for at in range(passes)
            for row in pack(dialogs, self._chosen(weights, f"{seed}/{at}"), self.heads, most, f"{seed}/pack/{at}")
        ]
        self.rows: Sequence[Row] = [
            Row(
                row.size,
                sum(len(dialogs[number].tokens.counted) for number in row.dialogs),
                tuple(dialogs[number].record for number in row.dialogs),
            )
            for row in self.packs
        ]

    def _chosen(self, weights: Sequence[float] | None, seed: str) -> Sequence[int]:
        return draw_pass(weights, f"{seed}/draw") if weights else range(len(self.dialogs))

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002 - there is none
        """Make a micro-batch; `causal_lm_packing.batch` names its tensors."""
        return batch([Layout(self.packs[at], self.dialogs) for at in rows], self.device)

    def describe(self) -> dict[str, Any]:
        """Say what the data holds; `tokens_apart` counts what its dialogs are when each stands alone."""
        apart = sum(len(self.dialogs[number].tokens.ids) for row in self.packs for number in row.dialogs)
        return {
            "dialogs": len(self.dialogs),
            "left_out": dict(self.left_out),
            "rows": len(self.rows),
            "tokens": sum(row.size for row in self.packs),
            "tokens_apart": apart,
            "labels": sum(row.units for row in self.rows),
        }
