"""Plan, make, judge and show sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import ClassVar

import pyarrow as pa

from tercet.modality import Check, Needs, PayloadType, Planning, Resources, Shown
from tercet.randomness import digest
from tercet.records import Candidate, Columns, Item, Made, ModelUse, Verdict
from tercet_sums.recipe import AtMostGate, SumsRecipe, TwiceGate


class Sums:
    """The plan: index k asks for k // 4 + k % 4."""

    def __init__(self, section: SumsRecipe, planning: Planning) -> None:  # noqa: ARG002 - the seam passes both
        self.quota = section.quota

    def __len__(self) -> int:
        return int(self.quota)

    def item(self, index: int) -> Item:
        """Plan one sum."""
        left, right = divmod(index, 4)
        cell = {"parity": "odd" if (left + right) % 2 else "even"}
        return Item("sums", "adder", "train", {"left": left, "right": right}, index, cell)


class Adder:
    """Writes the question and its answer."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.1)
    batch_size: ClassVar[int] = 8

    def __init__(self, section: SumsRecipe, resources: Resources) -> None:
        """Need nothing."""

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        """Add."""
        for item in items:
            left, right = item.spec["left"], item.spec["right"]
            sums = {"question": f"What is {left} plus {right}?", "answer": left + right}
            yield Made(sums, ModelUse("arithmetic", digest("arithmetic"), "none", "free"))


class AtMost:
    """Rejects a sum whose answer is above the limit."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.1)
    batch_size: ClassVar[int] = 8

    def __init__(self, section: AtMostGate, resources: Resources) -> None:  # noqa: ARG002 - the seam passes both
        self.limit = section.limit

    def __call__(self, batch: Sequence[Candidate]) -> list[Verdict]:
        """Judge each answer alone."""
        answers = [candidate.payload["answer"] for candidate in batch]
        return [
            Verdict("at_most", answer <= self.limit, answer, self.limit, "" if answer <= self.limit else "too large")
            for answer in answers
        ]


class Twice:
    """Rejects an answer that occurs too often, in plan order."""

    def __init__(self, section: TwiceGate, resources: Resources) -> None:  # noqa: ARG002 - the seam passes both
        self.most = section.answers

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        """Count the answers as they come."""
        seen: Counter[int] = Counter()
        for candidate in candidates:
            answer = candidate.payload["answer"]
            seen[answer] += 1
            passed = seen[answer] <= self.most
            yield Verdict("twice", passed, seen[answer], self.most, "" if passed else "answer too frequent")


def fingerprint(columns: Columns) -> str:
    """Hash question and answer."""
    return digest({"question": columns["question"], "answer": columns["answer"]})


payload = PayloadType(1, pa.schema([("question", pa.string()), ("answer", pa.int64())]), {}, fingerprint)


def show(columns: Columns) -> Shown:
    """Show a sum on one line."""
    line = f"{columns['question']} {columns['answer']}"
    return Shown(line, f"<p>{escape(line)}</p>")


def checks(section: SumsRecipe | None) -> Iterator[Check]:
    """Say that sums always work."""
    yield Check("sums", passed=True, detail="this machine can add")
