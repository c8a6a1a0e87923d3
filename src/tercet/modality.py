"""The seam: one frozen value says all that a modality adds, and the protocols its parts keep.

Code is named "module:attribute" and imported in the worker that needs it, so that importing a plug-in pulls in
neither torch nor a speech engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from tercet.randomness import seed_for
from tercet.records import Candidate, Columns, Failure, Item, Made, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

Named = str  # "package.module:attribute"


@dataclass(frozen=True)
class Modality:
    """All that a plug-in adds to tercet."""

    name: str
    extra: str  # pip install 'tercet[<extra>]'
    recipe_model: Named  # a pydantic model for `modalities.<name>`; imports nothing heavy
    payload: Named  # a PayloadType
    plan: Named  # (section, Planning) -> Plan
    generators: Mapping[str, Named]  # name -> Generator or AsyncGenerator class
    gates: Mapping[str, Named] = field(default_factory=dict)  # in the order they run; name -> Gate class
    corpus_gates: Mapping[str, Named] = field(default_factory=dict)  # name -> CorpusGate class
    tasks: Mapping[str, Named] = field(default_factory=dict)  # training tasks: name -> class
    metrics: Mapping[str, Named] = field(default_factory=dict)
    models: Mapping[str, Named] = field(default_factory=dict)  # `bundled:<modality>/<name>` -> "package:folder in it"
    show: Named = ""  # (Columns) -> Shown, for preview and report
    checks: Named = ""  # (section | None) -> Iterable[Check], for doctor and validate
    commands: Mapping[str, Named] = field(default_factory=dict)  # `tercet <name> <command>`


@dataclass(frozen=True)
class PayloadType:
    """The shape of a modality's payload in a shard.

    `columns` is the Arrow schema of the payload alone; `features` is the Hugging Face feature of each column
    (`{"audio": {"_type": "Audio", "sampling_rate": 16000}}`). A column in `media` is bytes in a payload and
    `struct<bytes, path>` in the schema; `media` maps it to its file suffix (`{"audio": "flac"}`). `fingerprint` hashes
    the *decoded* content (PCM, pixels, canonical JSON), never encoded bytes, so that another encoder gives the same
    record. `plain` gives a payload as other tools read it in JSON, where a shard has to hold JSON as text.
    """

    version: int
    columns: pa.Schema
    features: Mapping[str, Any]
    fingerprint: Callable[[Columns], str]
    media: Mapping[str, str] = field(default_factory=dict)
    plain: Callable[[Columns], Columns] = lambda payload: payload


@dataclass(frozen=True)
class Needs:
    """What one worker of a stage takes; the executor places workers so that their sum fits the machine."""

    memory_gib: float = 0.5
    gpus: int = 0
    model: bool = False  # loads a model: kept alive between batches, one per worker


@dataclass(frozen=True)
class Resources:
    """What a generator or gate is given beside its own recipe section, in the process that runs it."""

    recipe_seed: int
    language: str
    cores: int
    answers: Answers
    examples_root: str = ""  # folder that relative paths in the recipe start from

    def seed_for(self, item: Item, stage: str, attempt: int = 0) -> int:
        """Seed for one item in one stage (63 bits)."""
        return seed_for(self.recipe_seed, item.key, stage, attempt)


class Answers(Protocol):
    """Journalled answers, for a generator that asks several times per item or pays for each answer."""

    def recall(self, key: str) -> bytes | None:
        """Return the answer kept under `key`, or None."""

    def keep(self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0) -> None:
        """Keep an answer durably (returns after the commit) and book what it cost."""

    def reserve(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Book spending before it happens; raises BudgetError when the budget has no room for it."""

    async def keep_async(
        self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0
    ) -> None:
        """Do as `keep` without holding up the event loop."""

    async def reserve_async(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Do as `reserve` without holding up the event loop."""


class NoAnswers:
    """Answers that remember nothing: for previews and tests."""

    def recall(self, key: str) -> bytes | None:  # noqa: ARG002
        """Know nothing."""
        return None

    def keep(self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0) -> None:
        """Keep nothing."""

    def reserve(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Allow everything."""

    async def keep_async(
        self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0
    ) -> None:
        """Keep nothing."""

    async def reserve_async(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Allow everything."""


class Plan(Protocol):
    """What a recipe asks of one modality: never a list in memory."""

    def __len__(self) -> int:
        """Count the items."""

    def item(self, index: int) -> Item:
        """Give the item at `index`; the same index always gives the same item."""


class Generator(Protocol):
    """Makes payloads in a worker process. Constructed there once, as `cls(section, resources)`."""

    needs: ClassVar[Needs]
    batch_size: ClassVar[int]

    def __call__(self, items: Sequence[Item]) -> Iterable[Made | Failure]:
        """Yield one answer per item, in order. An exception is that batch's failure, item by item."""


@runtime_checkable
class AsyncGenerator(Protocol):
    """Makes payloads by waiting for somebody else (an endpoint); runs inside the driver, many items at once.

    A class attribute `keeps_answers = True` says that it keeps all that it paid for by `Answers.keep_async`: the next
    item then starts before this one's payload is written.
    """

    concurrency: int

    async def make(self, item: Item) -> Made | Failure:
        """Answer one item."""

    async def aclose(self) -> None:
        """Close connections."""


class Gate(Protocol):
    """Judges payloads. Constructed in a worker as `cls(gate_section, resources)`; batches are cut by plan index."""

    needs: ClassVar[Needs]
    batch_size: ClassVar[int]

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Return one verdict per candidate, in order; each candidate's `slot` is fixed by the plan."""


class CorpusGate(Protocol):
    """Judges the whole set once, in plan order; constructed as `cls(gate_section, resources)`."""

    def __call__(self, candidates: Iterable[Candidate]) -> Iterator[Verdict]:
        """Yield one verdict per candidate, in order; may remember what it has seen."""


@dataclass(frozen=True)
class Shown:
    """A record for human eyes: a line of text for a terminal, and HTML that needs no network."""

    text: str
    html: str


@dataclass(frozen=True)
class Check:
    """One thing `doctor` and `validate` can say about this machine or recipe.

    With `output_terms` set the check is about a model or engine that the recipe would use: "free", "research"
    (non-commercial) or "unknown"; `use: commercial` refuses the last two unless `accept_terms` names it.
    """

    name: str
    passed: bool
    detail: str
    fix: str = ""
    licence: str = ""
    output_terms: str = ""
    required: bool = True  # False: only worth a note


@dataclass(frozen=True)
class Planning:
    """What a modality's planner is given: the user's sources, the seed and the language."""

    seed: int
    language: str
    terms: Sequence[Any] = ()  # tercet.sources.Term
    phrases: Sequence[str] = ()  # sentences that hold {term} once
    documents: Sequence[Any] = ()  # tercet.sources.Document
    examples: Sequence[Any] = ()  # tercet.sources.Example of this modality
    real_fraction: float = 0.0
    root: str = ""  # the recipe's folder, as in Resources.examples_root
