"""A modality that does nothing: what is left is the pipeline's own cost per record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from tercet.modality import Modality, Needs, PayloadType, Planning, Resources
from tercet.randomness import answer_key, digest
from tercet.recipe import Section
from tercet.records import Candidate, Item, Made, ModelUse, Verdict

MODEL = ModelUse("none", "", "none", "free")


class Pass(Section):
    """Switches the gate on."""


class Gates(Section):
    """The gates."""

    passing: Pass | None = Pass()


class NoopRecipe(Section):
    """How many records, and where the endpoint is (empty: none is asked)."""

    records: int = 1000
    url: str = ""
    concurrency: int = 32
    gates: Gates = Gates()


@dataclass(frozen=True)
class NoopPlan:
    """Numbers from 0."""

    section: NoopRecipe

    def __len__(self) -> int:
        """Count the records."""
        return self.section.records

    def item(self, index: int) -> Item:
        """Plan one number."""
        return Item("noop", "endpoint" if self.section.url else "count", "train", {"number": index}, index)


def plan(section: NoopRecipe, planning: Planning) -> NoopPlan:
    """Plan the numbers."""
    del planning
    return NoopPlan(section)


payload = PayloadType(
    version=1,
    columns=pa.schema([("text", pa.string())]),
    features={"text": {"_type": "Value", "dtype": "string"}},
    fingerprint=lambda columns: digest(columns["text"]),
)


class Count:
    """Writes each number as text."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 256

    def __init__(self, section: NoopRecipe, resources: Resources) -> None:
        del section, resources

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        """Make the payloads."""
        for item in items:
            yield Made({"text": str(item.spec["number"])}, MODEL)


class Endpoint:
    """Asks an OpenAI-compatible endpoint once per item; the answer is kept under its key before it is used."""

    keeps_answers: ClassVar[bool] = True

    def __init__(self, section: NoopRecipe, resources: Resources) -> None:
        from tercet.backends import OpenAIBackend

        self.answers = resources.answers
        self.concurrency = section.concurrency
        self.backend = OpenAIBackend(section.url, "noop", concurrency=section.concurrency)

    async def make(self, item: Item) -> Made:
        """Ask for one completion, or take the one that an earlier run kept."""
        from tercet.backends import ChatRequest

        number = str(item.spec["number"])
        key = answer_key(item.key, "generate", 0, 0, {"number": number}, self.backend.model.digest)
        kept = self.answers.recall(key)
        if kept is None:
            await self.answers.reserve_async(requests=1)
            completion = await self.backend.complete(ChatRequest(({"role": "user", "content": number},), 16))
            kept = completion.text.encode()
            spent = completion.prompt_tokens + completion.completion_tokens
            await self.answers.keep_async(key, kept, tokens=spent)
        return Made({"text": f"{number}: {kept.decode()}"}, MODEL)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.backend.aclose()


class Passing:
    """Passes everything."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 256

    def __init__(self, section: Pass, resources: Resources) -> None:
        del section, resources

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Judge nothing."""
        return [Verdict("passing", passed=True)] * len(batch)


modality = Modality(
    name="noop",
    extra="noop",
    recipe_model="tercet_noop:NoopRecipe",
    payload="tercet_noop:payload",
    plan="tercet_noop:plan",
    generators={"count": "tercet_noop:Count", "endpoint": "tercet_noop:Endpoint"},
    gates={"passing": "tercet_noop:Passing"},
)
