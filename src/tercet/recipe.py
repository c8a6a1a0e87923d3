"""The recipe: one YAML file, checked whole before anything runs.

The core owns the keys below; everything under `modalities.<name>` is checked by that plug-in's own pydantic model.
An unknown key anywhere is an error with file, line, key and the nearest key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from tercet import registry
from tercet.errors import RecipeError
from tercet.randomness import canonical_json, digest
from tercet.yaml_lines import Located, read_yaml

RECIPE_VERSION = 1
LATER_KEYS = ("budget", "train", "evaluate", "export")  # may change without changing a record
LATER_MODALITY_KEYS = ("training",)  # the same, in a modality's own section
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class Section(BaseModel):
    """Base of every recipe section: frozen; an unknown key is an error, and so is .nan or .inf."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Budget(Section):
    """A hard stop on what the run may spend; None is no limit."""

    requests: int | None = Field(None, ge=0, description="requests to a text backend")
    tokens: int | None = Field(None, ge=0, description="prompt and completion tokens")
    money: float | None = Field(None, ge=0, description="in the currency of the endpoint's prices")


class ExampleSource(Section):
    """The user's own records: JSONL, or a folder with a manifest; they become records like the synthetic ones."""

    modality: Name
    path: str
    real_fraction: float = Field(0.2, gt=0, lt=1, description="their share of the train split, at most")


class Sources(Section):
    """What the user brings: terms, how they are said, documents, real examples. Paths start at the recipe's folder."""

    terms: str | None = Field(None, description="a .txt (one term a line) or .csv (term, spoken, category)")
    phrases: str | None = Field(None, description="a .txt of sentences, one a line, that hold {term} once")
    documents: str | None = Field(None, description="a folder of .md and .txt files")
    examples: tuple[ExampleSource, ...] = ()


class Adapter(Section):
    """The LoRA adapter. None leaves a value to the task's measured default."""

    rank: int = Field(16, ge=1, le=256)
    alpha: float | None = Field(None, gt=0, description="default: twice the rank")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank), not alpha / rank (arXiv:2312.03732)")
    dora: bool = Field(default=False, description="train the weights' magnitudes too (arXiv:2402.09353)")
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: str | None = Field(None, description="regular expression over module names; default: the task's")

    @field_validator("targets")
    @classmethod
    def _is_a_pattern(cls, targets: str | None) -> str | None:
        try:
            re.compile(targets or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return targets


class EarlyStop(Section):
    """Stop when decoded answers no longer improve; the best adapter so far is the one that is kept."""

    every: int = Field(50, ge=1, description="steps between two looks")
    patience: int = Field(3, ge=1, description="looks without a better one before training stops")
    share: float = Field(0.1, gt=0, le=0.5, description="of the training records, kept out of training to look at")
    examples: int = Field(64, ge=1, description="at most so many of them are decoded")


class SampleWeights(Section):
    """How often a record is trained on, by how far it stayed from a gate's threshold."""

    gate: Name = Field(description="a gate with a score; the record farthest from its threshold counts 1")
    least: float = Field(0.25, gt=0, le=1, description="what a record at the threshold counts")


class Train(Section):
    """How an adapter is trained. None leaves a value to the task's measured default."""

    task: Name
    base: str = Field("auto", description="hf:owner/name, path:./dir, pkg:distribution, or auto")
    adapter: Adapter = Adapter()
    steps: int = Field(200, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after the warm-up")
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    micro_batch: int = Field(2, ge=1, description="rows (for Whisper: 30-second windows) per forward")
    budget: float | None = Field(
        None, gt=0, description="in place of micro_batch: tokens (for Whisper: seconds) per forward, padding included"
    )
    accumulate: int = Field(1, ge=1, description="micro-batches per optimiser step, over all processes")
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 on a GPU, else fp32")
    kernels: Literal["auto", "fused", "peft"] = Field("auto", description="how LoRA layers are computed; auto: fused")
    activation_checkpointing: bool = Field(default=False, description="compute activations twice to keep fewer")
    checkpoint_every: int = Field(50, ge=1, description="steps")
    keep_every: int | None = Field(None, ge=1, description="also keep the checkpoint of every so many steps")
    early_stop: EarlyStop | None = None
    lora_scale: float | None = Field(None, gt=0, le=1, description="scale of the finished adapter, 1 is as trained")
    replay: float | None = Field(None, ge=0, lt=1, description="share of general examples mixed in")
    data_fraction: float = Field(1.0, gt=0, le=1, description="share of the training records that is used, by key")
    real_fraction: float | None = Field(
        None, gt=0, lt=1, description="share of your own records; default: as they come"
    )
    weights: SampleWeights | None = None
    tracker: Literal["none", "trackio"] = Field("none", description="beside the local log and its picture")

    @model_validator(mode="after")
    def _dora_has_no_scale(self) -> Train:
        if self.adapter.dora and self.lora_scale not in (None, 1.0):
            raise ValueError(
                "lora_scale: a DoRA adapter can't be scaled after training; leave it out, or set dora: false"
            )
        return self


class Evaluate(Section):
    """How the adapter is judged."""

    general: str | None = Field(None, description="a folder of general examples with a manifest; never trained on")
    margin: float = Field(2.0, ge=0, description="allowed rise on the general set, in points of the primary metric")
    bootstrap: int = Field(2000, ge=200, description="resamples")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    limit: int | None = Field(None, ge=1, description="at most this many examples per suite")


class Export(Section):
    """What `tercet export` writes without --to."""

    formats: tuple[Literal["parquet", "jsonl", "webdataset"], ...] = Field(("parquet",), min_length=1)


class RecipeBase(Section):
    """The keys that the core owns."""

    version: Literal[1]
    name: Name
    seed: int = Field(0, ge=0, lt=2**63)
    use: Literal["research", "commercial"] = "research"
    accept_terms: tuple[str, ...] = Field((), description="models and engines whose terms you have read and accept")
    language: str = Field("en", pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")
    budget: Budget = Budget()
    sources: Sources = Sources()
    train: Train | None = None
    evaluate: Evaluate = Evaluate()
    export: Export = Export()


class Recipe:
    """A checked recipe: the typed sections, the text they came from, and the folder that paths start at."""

    def __init__(self, sections: Any, data: Mapping[str, Any], path: Path) -> None:
        self.sections = sections
        self.data = data
        self.path = path

    @property
    def root(self) -> Path:
        """Folder that the recipe's relative paths start at."""
        return self.path.parent

    @property
    def name(self) -> str:
        """Name of the recipe, and of its run directory."""
        return str(self.sections.name)

    @property
    def data_content(self) -> dict[str, Any]:
        """The part of the recipe that decides what the records are; training, evaluation and budget don't."""
        kept = {key: value for key, value in self.data.items() if key not in LATER_KEYS}
        modalities = {
            name: {key: value for key, value in (section or {}).items() if key not in LATER_MODALITY_KEYS}
            for name, section in (kept.get("modalities") or {}).items()
        }
        return {**kept, "modalities": modalities} if modalities else kept

    @property
    def digest(self) -> str:
        """Digest of the part that decides the records; comments and layout don't count."""
        return digest(self.data_content)

    def replaced(self, **sections: Any) -> Recipe:
        """Give the recipe with other top-level sections; relative paths still start at its folder.

        A value is checked as the recipe's own text would be: data for a nested section, or a plain value.
        """
        data = {**self.data, **sections}
        return Recipe(type(self.sections).model_validate(data), data, self.path)

    def modality_sections(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, section) for each modality the recipe fills, in alphabetical order."""
        for name in sorted(self.data.get("modalities") or {}):
            yield name, getattr(self.sections.modalities, name)


def recipe_model(names: Iterator[str] | list[str]) -> type[BaseModel]:
    """Compose the root model from the named modalities' own models."""
    fields: dict[str, Any] = {}
    for name in names:
        plug_in = registry.modality(name)
        fields[name] = (registry.load(plug_in.recipe_model, plug_in.extra) | None, None)
    modalities = create_model("Modalities", __base__=Section, **fields)
    return create_model(
        "Recipe", __base__=RecipeBase, modalities=(modalities, Field(default_factory=modalities, validate_default=True))
    )


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: with one line per fault: `file:line: key: what is wrong; what to do`.
    """
    path = Path(path)
    located = read_yaml(path)
    if not isinstance(located.data, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of keys; found {_kind(located.data)}")
    version = located.data.get("version", RECIPE_VERSION)
    if isinstance(version, int) and version != RECIPE_VERSION:
        raise RecipeError(
            f"{located.place(('version',))}: version: {version} is not {RECIPE_VERSION}; "
            f"this tercet reads version {RECIPE_VERSION} recipes"
        )
    named = located.data.get("modalities") or {}
    installed = registry.modalities()
    names = [str(name) for name in named] if isinstance(named, dict) else []
    for name in names:
        if name not in installed:
            raise RecipeError(f"{located.place(('modalities', name))}: modalities.{name}: {_unknown_modality(name)}")
    model = recipe_model(names)
    try:
        sections = model.model_validate(located.data)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, located, model))) from error
    return Recipe(sections, located.data, path)


def _kind(data: Any) -> str:
    return "an empty file" if data is None else f"a {type(data).__name__}"


def _unknown_modality(name: str) -> str:
    installed = list(registry.modalities())
    near = difflib.get_close_matches(name, installed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(installed) or "none"
    return f"no such modality; {hint}installed: {known}; ours come with: pip install 'tercet[all]'"


def _explain(error: ValidationError, located: Located, model: type[BaseModel]) -> Iterator[str]:
    """Turn pydantic's errors into lines of place, key, value and fix."""
    for fault in error.errors(include_url=False):
        keys = tuple(part for part in fault["loc"] if not _is_branch(part, fault["loc"], located))
        yield f"{located.place(keys)}: {explain_fault(fault, keys, model)}"


def explain_fault(fault: Mapping[str, Any], keys: tuple[Any, ...], model: type[BaseModel]) -> str:
    """Say of one of pydantic's errors which key of `model` it is about, what is wrong, and the fix."""
    name = ".".join(str(key) for key in keys)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{name}: unknown key; {fix}"
    if fault["type"] == "missing":
        return f"{name}: missing; add this key"
    return f"{name}: {_say(fault)}"


def _say(fault: Mapping[str, Any]) -> str:
    value = fault["input"]
    try:
        shown = canonical_json(value) if isinstance(value, str | int | float | bool | list | dict) else repr(value)
    except ValueError:  # .nan or .inf, which JSON can't hold
        shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    context = fault.get("ctx", {})
    plain = {
        "greater_than_equal": "is below {ge}",
        "greater_than": "is not above {gt}",
        "less_than_equal": "is above {le}",
        "less_than": "is not below {lt}",
        "literal_error": "is not one of {expected}",
    }.get(fault["type"])
    if plain:
        return f"{shown} {plain.format(**context)}"
    if fault["type"] in {"model_type", "dict_type"}:
        return f"{shown}: should be a mapping of keys"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{shown}: should be {message}" if fault["msg"].startswith("Input should be ") else f"{shown}: {message}"


def _is_branch(part: Any, loc: tuple[Any, ...], located: Located) -> bool:
    """Tell a union branch that pydantic put into the path from a key of the file."""
    at = loc.index(part)
    return at > 0 and at < len(loc) - 1 and not located.has(loc[: at + 1]) and isinstance(part, str)


def _known_keys(model: type[BaseModel], keys: tuple[Any, ...]) -> list[str]:
    """List the keys allowed at `keys`, by walking the JSON schema."""
    schema = model.model_json_schema()
    node: Any = schema
    for key in (*keys, None):
        while True:
            if "$ref" in node:
                node = schema["$defs"][node["$ref"].split("/")[-1]]
                continue
            options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
            if not options:
                break
            node = options[0]
        if key is None:
            return list(node.get("properties", {}))
        others = node.get("additionalProperties")  # a mapping whose keys are the user's own names
        others = others if isinstance(others, dict) else {}
        node = node.get("items", {}) if isinstance(key, int) else node.get("properties", {}).get(key, others)
    return []


def schema() -> dict[str, Any]:
    """Give the JSON Schema of a recipe with every installed modality."""
    return recipe_model(list(registry.modalities())).model_json_schema()


def dump_recipe(recipe: Recipe) -> str:
    """Write the recipe's content as YAML, for the run directory."""
    return yaml.safe_dump(dict(recipe.data), sort_keys=False, allow_unicode=True)
