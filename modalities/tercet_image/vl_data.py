"""Training data of the task `vision-language`: one row for each question about a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.errors import NothingSurvived
from tercet.recipe import Train
from tercet.records import Record
from tercet.train.mixing import draw_pass, record_weights
from tercet.train.task import OnUnits, Row
from tercet_image.vl_reader import Reader, open_picture

DESCRIBE = "Describe the picture."
WEIGHTED_PASSES = 4  # where records come more or less often than once, several draws stand for their weights
TOLD_EVERY = 64  # pictures


@dataclass(frozen=True)
class Asked:
    """One question about one picture, and the tokens of its answer; `size` counts the whole row's tokens."""

    record: str
    picture: bytes
    question: str
    answer: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Described:
    """A picture with what is asked about it."""

    name: str
    picture: bytes
    turns: tuple[tuple[str, str], ...]  # question, answer


def described(name: str, payload: Mapping[str, Any], *, describe: bool) -> Described:
    """Take a payload's questions, and its caption where `describe` asks for it or there is no question."""
    turns = [(one["question"], one["answer"]) for one in payload["questions"] or ()]
    if describe or not turns:
        turns.append((DESCRIBE, payload["caption"]))
    return Described(name, payload["image"], tuple(turns))


def prepare(
    reader: Reader,
    records: Sequence[Record],
    replay: Iterable[Described],
    train: Train,
    seed: int,
    on_units: OnUnits,
    *,
    describe: bool,
) -> AskedData:
    """Turn records into rows; a row of more tokens than the base's context is left out and counted, never cut.

    Raises:
        NothingSurvived: there is no record, or none that fits.
        CorruptError: a record's picture is missing or broken.
    """
    if not records:
        raise NothingSurvived("no accepted picture to train on; tercet report shows why they were rejected")
    own: list[list[Asked]] = []
    for done, record in enumerate(records, 1):
        own.append(_asked(reader, described(record.id, record.payload, describe=describe)))
        if done % TOLD_EVERY == 0 or done == len(records):
            on_units(done, len(records))
    fitting = [[one for one in some if one.size <= reader.context] for some in own]
    left_out = sum(map(len, own)) - sum(map(len, fitting))
    if not any(fitting):
        raise NothingSurvived(
            f"none of {left_out} questions fits the base's context of {reader.context} tokens: ask shorter questions, "
            "or name another train.base"
        )
    is_weighed = train.weights is not None or train.real_fraction is not None
    weights = record_weights(records, train) if is_weighed else None
    passes = (
        [draw_pass(weights, f"{seed}/draw/{at}") for at in range(WEIGHTED_PASSES)] if weights else [range(len(own))]
    )
    chosen = [asked for one in passes for at in one for asked in fitting[at]]
    general = [asked for one in replay for asked in _asked(reader, one) if asked.size <= reader.context]
    return AskedData(reader, chosen, general, left_out)


def _asked(reader: Reader, one: Described) -> list[Asked]:
    picture = open_picture(one.picture, one.name)
    rows = []
    for question, answer in one.turns:
        tokens = reader.answer_tokens(question, answer)
        size = reader.size(picture, question) + len(tokens)
        rows.append(Asked(one.name, one.picture, question, tuple(tokens), size))
    return rows


class AskedData:
    """Rows of questions about pictures; replay rows are learned as the others are, for their answers are true too."""

    padded_to = 0.0
    unit = "tokens"

    def __init__(self, reader: Reader, own: Sequence[Asked], general: Sequence[Asked], left_out: int) -> None:
        self.reader, self.own, self.general, self.left_out = reader, own, general, left_out
        self.rows, self.replay = (
            [Row(one.size, len(one.answer), (one.record,)) for one in some] for some in (own, general)
        )

    def collate(self, rows: Sequence[int], replay: Sequence[int]) -> dict[str, Any]:
        """Make a micro-batch; `Reader.teach` names its tensors.

        Raises:
            ModelError: no pixel values reach the model, or not as many image tokens as it has features.
        """
        chosen = [*(self.own[at] for at in rows), *(self.general[at] for at in replay)]
        pictures = [open_picture(one.picture, one.record) for one in chosen]
        return self.reader.teach(pictures, [one.question for one in chosen], [one.answer for one in chosen])

    def describe(self) -> dict[str, Any]:
        """Say what the data holds."""
        return {
            "pictures": len({one.record for one in self.own}),
            "questions": len(self.own),
            "replay_questions": len(self.general),
            "over_context": self.left_out,
            "labels": sum(len(one.answer) for one in self.own),
        }
