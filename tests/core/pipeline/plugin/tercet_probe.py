"""A modality for the pipeline's tests: each item's spec says whether it works, fails, dies, waits or is rejected."""

import asyncio
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from tercet.errors import BackendError
from tercet.modality import Check, Modality, Needs, PayloadType, Planning, Resources, Shown
from tercet.randomness import answer_key, canonical_json, digest
from tercet.recipe import Section
from tercet.records import Candidate, Columns, Failure, Item, Made, ModelUse, Verdict

MODEL = ModelUse("pkg:probe", "d" * 32, "MIT", "free")


class Limit(Section):
    """Rejects numbers of which `every` is a divisor."""

    every: int = 7


class Gates(Section):
    """The probe's gates."""

    odd: Limit | None = None
    broken: Limit | None = None
    corpus: Limit | None = None


class ProbeRecipe(Section):
    """How many items, and which of them misbehave."""

    items: int = 10
    generator: str = "sync"
    fail: tuple[int, ...] = ()  # retryable while the file `mended` is absent from the recipe's folder
    die: tuple[int, ...] = ()
    same: tuple[int, ...] = ()  # items that get one common payload
    log: str = ""  # file to which each made item is appended
    size: int = 10
    seconds: float = 0.0
    gates: Gates = Gates()


@dataclass(frozen=True)
class ProbePlan:
    section: ProbeRecipe

    def __len__(self) -> int:
        return self.section.items

    def item(self, index: int) -> Item:
        number = -1 if index in self.section.same else index
        split = "test" if index % 5 == 4 else "train"
        spec = {"number": number, "twin": index if number < 0 else 0}
        return Item("probe", self.section.generator, split, spec, index, {"parity": str(index % 2)})


def plan(section: ProbeRecipe, planning: Planning) -> ProbePlan:
    return ProbePlan(section)


payload = PayloadType(
    version=1,
    columns=pa.schema([("number", pa.int64()), ("blob", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]),
    features={"number": {"_type": "Value", "dtype": "int64"}},
    fingerprint=lambda columns: digest(str(columns["number"]), columns["blob"]),
    media={"blob": "bin"},
)


def _make(section: ProbeRecipe, root: str, item: Item) -> Made | Failure:
    number = item.spec["number"]
    if section.log:
        with open(Path(root, section.log), "a") as file:
            file.write(f"{item.index}\n")
    if item.index in section.die and not Path(root, "mended").exists():
        os._exit(9)
    if item.index in section.fail and not Path(root, "mended").exists():
        raise BackendError(f"item {item.index} is not to be had", True)
    body = str(number).encode() * section.size if section.size < 100 else random.Random(number).randbytes(section.size)
    return Made({"number": number, "blob": body}, MODEL, {"doubled": number * 2})


class Sync:
    needs: ClassVar[Needs] = Needs()
    batch_size: ClassVar[int] = 4

    def __init__(self, section: ProbeRecipe, resources: Resources) -> None:
        self.section, self.root = section, resources.examples_root

    def __call__(self, items: Sequence[Item]) -> Iterator[Made | Failure]:
        for item in items:
            time.sleep(self.section.seconds)
            yield _make(self.section, self.root, item)


class Waiting:
    """Asks twice per item through journalled answers."""

    concurrency = 8

    def __init__(self, section: ProbeRecipe, resources: Resources) -> None:
        self.section, self.root, self.answers = section, resources.examples_root, resources.answers

    async def make(self, item: Item) -> Made | Failure:
        for turn in range(2):
            key = answer_key(item.key, "generate", turn, 0, {}, "probe")
            if self.answers.recall(key) is None:
                await self.answers.reserve_async(requests=1)
                with open(Path(self.root, "asked"), "a") as file:
                    file.write(f"{item.index}.{turn}\n")
                await asyncio.sleep(self.section.seconds)
                await self.answers.keep_async(key, b"yes", tokens=3)
        return _make(self.section, self.root, item)

    async def aclose(self) -> None:
        Path(self.root, "closed").touch()


class Odd:
    needs: ClassVar[Needs] = Needs()
    batch_size: ClassVar[int] = 3

    def __init__(self, section: Limit, resources: Resources) -> None:
        del resources
        self.every = section.every

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        assert len({candidate.slot for candidate in batch}) == len(batch)
        return [
            Verdict("odd", number % self.every != 0, float(number), float(self.every), "divisible: by it")
            for number in (candidate.payload["number"] for candidate in batch)
        ]


class Broken(Odd):
    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        if any(candidate.payload["number"] % self.every == 0 for candidate in batch):
            raise RuntimeError("no judge today")
        return super().__call__(batch)


class Corpus:
    """Rejects a number that ends like an earlier one (in the base `every`)."""

    def __init__(self, section: Limit, resources: Resources) -> None:
        del resources
        self.every = section.every

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        seen: set[int] = set()
        for candidate in candidates:
            ending = candidate.payload["number"] % self.every
            yield Verdict("corpus", ending not in seen, reason="seen")
            seen.add(ending)


def show(columns: Columns) -> Shown:
    return Shown(canonical_json({"number": columns["number"]}), "<b>probe</b>")


def checks(section: ProbeRecipe | None) -> list[Check]:
    return [Check("probe", True, "always there")]


modality = Modality(
    name="probe",
    extra="probe",
    recipe_model="tercet_probe:ProbeRecipe",
    payload="tercet_probe:payload",
    plan="tercet_probe:plan",
    generators={"sync": "tercet_probe:Sync", "waiting": "tercet_probe:Waiting"},
    gates={"odd": "tercet_probe:Odd", "broken": "tercet_probe:Broken"},
    corpus_gates={"corpus": "tercet_probe:Corpus"},
    show="tercet_probe:show",
    checks="tercet_probe:checks",
)
