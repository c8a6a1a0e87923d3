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
from tercet_text.causal_lm_chat import ChatFormat, TemplateFault, Tokens
from tercet_text.causal_lm_decoding import Written
from tercet_text.causal_lm_packing import Dialog, Layout, Pack, batch, pack, shared_heads
from tercet_text.lm_suites import tools_of

if TYPE_CHECKING:
    import torch

PACK_TOKENS = 1024  # of a row; a longer dialog is a row of its own
WEIGHTED_PASSES = 4  # where records come more or less often than once, several draws stand for their weights
REPLAY_TOKENS = 256  # of a row of general questions
TOLD_EVERY = 64  # dialogs
UNFIT, TOO_LONG, SILENT = "unfit_for_template", "over_context", "without_answer"


def prepare(
    form: ChatFormat,
    context: int,
    device: torch.device,
    records: Iterable[Record],
    train: Train,
    seed: int,
    on_units: OnUnits,
    answered: Sequence[tuple[str, Written]] = (),
) -> PackedData:
    """Turn records into rows; a dialog of more than `context` tokens is left out and counted, never cut.

    `answered` holds general questions with the base's own answers: they become the rows of replay.

    Raises:
        NothingSurvived: there is no record, or none that fits.
    """
    held = list(records)
    if not held:
        raise NothingSurvived("no accepted dialog to train on; tercet report shows why they were rejected")
    dialogs, kept, left_out = _read(form, context, held, on_units)
    if not dialogs:
        said = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise NothingSurvived(f"none of {len(held)} dialogs can be trained on ({said}); {_mend(left_out, context)}")
    is_weighed = train.weights is not None or train.real_fraction is not None
    weights = record_weights(kept, train) if is_weighed else None
    most = min(context, PACK_TOKENS, int(train.budget or PACK_TOKENS))
    read = (_general(form, question, answer) for question, answer in answered)
    general = [dialog for dialog in read if dialog.tokens.counted]
    return PackedData(dialogs, general, weights, most, left_out, device, seed)


def _mend(left_out: Mapping[str, int], context: int) -> str:
    """Say what to do about the reason for which most dialogs were left out."""
    reasons: Counter[str] = Counter()
    for why, count in left_out.items():
        reasons[why.partition(":")[0]] += count
    mends = {
        UNFIT: "the base's chat template doesn't fit them: mend it or the dialogs, or name another train.base",
        TOO_LONG: f"the base's context is {context} tokens: make shorter dialogs, or name another train.base",
        SILENT: "the assistant says nothing in them: give it words",
    }
    return mends[max(reasons, key=lambda why: reasons[why])]


def _general(form: ChatFormat, question: str, answer: Written) -> Dialog:
    text = answer.text if answer.is_whole else answer.text.rstrip("\ufffd")  # a character that was cut
    [tokens] = form.pieces([{"role": "user", "content": question}, {"role": "assistant", "content": text}])
    return Dialog(f"general/{question}", tokens if answer.is_whole else _without_end(form, tokens), "general")


def _without_end(form: ChatFormat, tokens: Tokens) -> Tokens:
    """Count the words of an answer that was cut, and no end: it would teach to stop in the middle of a sentence."""
    counted = list(tokens.counted)
    while counted and _is_end(form, tokens.ids[counted[-1]]):
        counted.pop()
    return Tokens(tokens.ids, tuple(counted))


def _is_end(form: ChatFormat, token: int) -> bool:
    """Say whether a token ends a turn or is the template's space around that end: an answer ends on no space."""
    return token in form.ends or not form.tokenizer.decode([token]).strip()


def _read(
    form: ChatFormat, context: int, records: Sequence[Record], on_units: OnUnits
) -> tuple[list[Dialog], list[Record], Mapping[str, int]]:
    dialogs: list[Dialog] = []
    kept: list[Record] = []
    left_out: Counter[str] = Counter()
    for done, record in enumerate(records, 1):
        messages, tools = chat_messages(record.payload["messages"]), tools_of(record)
        try:
            pieces = form.pieces(messages, tools)
        except TemplateFault as fault:
            left_out[f"{UNFIT}: {fault}"] += 1
            continue
        learned = [piece for piece in pieces if piece.counted]
        if any(len(piece.ids) > context for piece in pieces):
            left_out[TOO_LONG] += 1
        elif not learned:
            left_out[SILENT] += 1
        else:
            system = messages[0]["content"] if messages[0]["role"] == "system" else ""
            beginning = digest(system, record.payload["tools"])
            dialogs += [Dialog(record.id, piece, beginning) for piece in learned]
            kept += [record] * len(learned)
        if done % TOLD_EVERY == 0 or done == len(records):
            on_units(done, len(records))
    return dialogs, kept, left_out


class PackedData:
    """Rows of packed dialogs, and rows of replay."""

    padded_to = 0.0
    unit = "tokens"

    def __init__(
        self,
        dialogs: Sequence[Dialog],
        general: Sequence[Dialog],
        weights: Sequence[float] | None,
        most: int,
        left_out: Mapping[str, int],
        device: torch.device,
        seed: int,
    ) -> None:
        self.dialogs, self.general, self.left_out, self.device = dialogs, general, left_out, device
        self.heads = shared_heads(dialogs)
        passes = WEIGHTED_PASSES if weights else 1
        self.packs = [
            row
            for at in range(passes)
            for row in pack(dialogs, self._chosen(weights, f"{seed}/{at}"), self.heads, most, f"{seed}/pack/{at}")
        ]
        self.replay_packs = pack(general, range(len(general)), shared_heads(general), REPLAY_TOKENS, f"{seed}/replay")
        self.rows: Sequence[Row] = [_row(row, dialogs) for row in self.packs]
        self.replay: Sequence[Row] = [_row(row, general) for row in self.replay_packs]

    def _chosen(self, weights: Sequence[float] | None, seed: str) -> Sequence[int]:
        return draw_pass(weights, f"{seed}/draw") if weights else range(len(self.dialogs))

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> list[dict[str, Any]]:
        """Make a micro-batch: the domain's rows, then replay's; `causal_lm_packing.batch` names their tensors."""
        layouts = [
            [Layout(self.packs[at], self.dialogs) for at in rows],
            [Layout(self.replay_packs[at], self.general) for at in replay],
        ]
        return [batch(some, self.device) for some in layouts if some]

    def describe(self) -> dict[str, Any]:
        """Say what the data holds; `tokens_apart` counts what its dialogs are when each stands alone."""
        apart = sum(len(self.dialogs[number].tokens.ids) for row in self.packs for number in row.dialogs)
        return {
            "dialogs": len({dialog.record for dialog in self.dialogs}),
            "left_out": dict(self.left_out),
            "rows": len(self.rows),
            "replay_rows": len(self.replay),
            "tokens": sum(row.size for row in self.packs),
            "tokens_apart": apart,
            "labels": sum(row.units for row in self.rows),
        }


def _row(row: Pack, dialogs: Sequence[Dialog]) -> Row:
    labels = sum(len(dialogs[number].tokens.counted) for number in row.dialogs)
    return Row(row.size, labels, tuple(dialogs[number].record for number in row.dialogs))
