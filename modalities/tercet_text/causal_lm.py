"""The training task `causal-lm`: a chat model learns dialogs, and is judged by the turns that it writes itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.compat import prepare_torchaudio
from tercet.errors import ModelError, SourceError, UsageError
from tercet.files import disk_error, fsync_folder
from tercet.machine import version_of
from tercet.modality import Shown
from tercet.models.reference import ResolvedModel
from tercet.randomness import canonical_json
from tercet.recipe import Recipe
from tercet.records import Record
from tercet.sources import read_documents, read_terms
from tercet.store.shards import read_records
from tercet.train.adapters import as_base
from tercet.train.mixing import is_watched, share_of, training_records
from tercet.train.task import ONE_IN_A_HUNDRED, Defaults, Example, Measured, OnUnits, Suite
from tercet_text.calls import Call
from tercet_text.causal_lm_attention import register
from tercet_text.causal_lm_chat import OPEN, ChatFormat, TemplateFault, before_calls, parse
from tercet_text.causal_lm_decoding import BATCH_SIZE, Decoder, Written, base_of
from tercet_text.causal_lm_probes import check_model, run_packed
from tercet_text.dialog import system_message
from tercet_text.environment import Environment
from tercet_text.general import Question, tuning
from tercet_text.lm_metrics import (
    GENERAL_ERRORS,
    REPLY_ERRORS,
    SPURIOUS,
    TASK_FAILURES,
    VALID_CALLS,
    count_tool_turn,
    read_turn,
    reply_error,
    turn_messages,
    write_turn,
)
from tercet_text.lm_suites import (
    ASKS,
    LEAST_TOKENS,
    MOST_GENERAL_TOKENS,
    MOST_TOKENS,
    TOPIC,
    dialog_examples,
    first_phrase,
    general_examples,
    read_suites,
)
from tercet_text.plan import terms_of
from tercet_text.recipe import TextRecipe
from tercet_text.show import show_turn
from tercet_text.tool_dialogs import system_message as tool_system_message
from tercet_text.tool_file import read_tools

if TYPE_CHECKING:
    import torch

    from tercet_text.lm_data import PackedData

LINEAR = (  # Phi-3 fuses some of them
    r".*layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|qkv_proj|o_proj)|mlp\.(gate_proj|up_proj|gate_up_proj|down_proj))"
)
MOST_CALLS = 3  # rounds of calls in one turn


class CausalLm:
    """Fine-tunes a chat model on a run's dialogs; with tools, its calls are executed and what it reports is checked."""

    general_metric = GENERAL_ERRORS
    false_trigger_metric = SPURIOUS
    rates: tuple[str, ...] = (VALID_CALLS,)
    settings: Mapping[str, Any] = {}  # nothing outside `train`

    def __init__(self, recipe: Recipe) -> None:
        section = getattr(recipe.sections.modalities, "text", None)
        if section is None:
            raise UsageError(f"{recipe.path}: train.task causal-lm needs dialogs; fill modalities.text")
        self.recipe = recipe
        self.section: TextRecipe = section
        self.has_tools = section.tools is not None and section.tools.dialogs > 0
        self.defaults = Defaults(
            base="chat",
            targets=LINEAR,
            learning_rate=1e-3,
            replay=0.3,
            lora_scale=1.0,
            pipeline_tag="text-generation",
            false_triggers=ONE_IN_A_HUNDRED,
        )
        # without tools nothing can be executed: there a reply is held against the reference's words
        self.primary_metric = TASK_FAILURES if self.has_tools else REPLY_ERRORS
        self.other_metric = REPLY_ERRORS if self.has_tools else ""
        self.decoding: Mapping[str, Any] = {
            "search": "greedy",
            "batch": BATCH_SIZE,
            "calls": MOST_CALLS,
            **{name: version_of(name) for name in ("torch", "transformers")},
        }
        self._form: ChatFormat  # set with the base

    def check_base(self, base: ResolvedModel, run_dir: Path) -> None:
        """Refuse a base without a chat template, or one whose template can't be trained on."""
        del run_dir
        prepare_torchaudio()
        ChatFormat.of(base.path)

    def load_base(self, path: Path) -> torch.nn.Module:
        """Load a causal language model in fp32, frozen.

        Raises:
            ModelError: it can't be loaded, or can't be trained on packed dialogs.
        """
        prepare_torchaudio()
        import torch
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation=register(), use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path}: can't be loaded as a causal language model: {str(error)[:200]}") from error
        self._form = ChatFormat.of(path)
        model = model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        context_of(model.config)
        check_model(model, path)
        found: torch.nn.Module = model
        return found

    def prepare(self, model: torch.nn.Module, run_dir: Path, seed: int, on_units: OnUnits) -> PackedData:
        """Turn the training dialogs into packed rows."""
        from tercet_text.lm_data import prepare

        base = base_of(model)
        train, seed_of_recipe = self.recipe.sections.train, self.recipe.sections.seed
        held = list(read_records(run_dir, "text", "train"))
        records = training_records(held, train, seed_of_recipe, first_phrase)
        watched = self._watched(held)
        records = [record for record in records if first_phrase(record) not in watched]
        replay = self.defaults.replay if train.replay is None else train.replay
        is_english = self.recipe.sections.language.startswith("en")  # as the general questions are
        answered = self._base_answers(model, on_units) if replay and is_english else ()
        return prepare(self._form, context_of(base.config), base.device, records, train, seed, on_units, answered)

    def _base_answers(self, model: Any, on_units: OnUnits) -> list[tuple[str, Written]]:
        """Let the base answer the general questions that don't judge: what it says there is what it shall go on to."""
        examples = general_examples(tuning())
        decoder = Decoder(model, self._form)
        answered: list[tuple[str, Written]] = []
        with as_base(model):
            for some in _cut(examples):
                prompts = [self._form.prompt(example.content["messages"]) for example in some]
                written = decoder.write(prompts, MOST_GENERAL_TOKENS)
                answered += [(example.source, one) for example, one in zip(some, written, strict=True)]
                on_units(len(answered), len(examples))
        return [(question, one) for question, one in answered if one.text]

    def validation(self, run_dir: Path) -> list[Example]:
        """Read the training dialogs that are kept out of training to be watched."""
        held = list(read_records(run_dir, "text", "train"))
        watched = self._watched(held)
        return list(dialog_examples(one for one in held if first_phrase(one) in watched))

    def _watched(self, records: Sequence[Record]) -> set[str]:
        """Choose the first phrases whose dialogs are kept out of training: a share, and one of a few at least."""
        early_stop, seed = self.recipe.sections.train.early_stop, self.recipe.sections.seed
        phrases = {first_phrase(record) for record in records}
        watched = {phrase for phrase in phrases if is_watched(phrase, early_stop, seed)}
        if early_stop and not watched and len(phrases) > 1:
            return {min(phrases, key=lambda phrase: share_of("validation", seed, phrase))}
        return watched

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the mean cross-entropy over the assistant's tokens, of the domain and of replay alike."""
        import torch

        counts = [len(some["targets_N"]) for some in batch]
        losses = [self._loss(model, some) for some in batch]
        weights = torch.tensor(counts, device=losses[0].device) / sum(counts)
        return (torch.stack(losses) * weights).sum()

    def _loss(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
        """Run the output layer only where an assistant's token is predicted: it is a fifth of SmolLM2's work."""
        import torch

        base: Any = base_of(model)
        hidden_BTD = run_packed(base, batch)
        logits_NV = base.get_output_embeddings()(hidden_BTD.flatten(0, 1)[batch["sources_N"]])
        return torch.nn.functional.cross_entropy(logits_NV.float(), batch["targets_N"])

    def suites(self, run_dir: Path) -> list[Suite]:
        """Read the held-out dialogs and general questions."""
        return read_suites(self.recipe, run_dir)

    def read_input(self, text: str) -> Example:
        """Take a user's message, with the recipe's own system message, and its tools where it has some."""
        if not text.strip():
            raise SourceError("an empty message; write what a user would ask")
        tools: list[Any] = []
        definition = None
        system = system_message(self.section.role)
        if self.has_tools and self.section.tools is not None:
            file = read_tools(self.recipe.root / self.section.tools.file)
            sources = self.recipe.sections.sources
            terms = read_terms(self.recipe.root / sources.terms) if sources.terms else ()
            documents = read_documents(self.recipe.root / sources.documents) if sources.documents else ()
            names = [term.text for term in terms_of(terms, documents)]
            environment = Environment(file.tools, file.seed, names)
            definition, system = environment.definition, tool_system_message(self.section.role, environment)
            tools = [tool.function_schema() for tool in environment.tools.values()]
        messages = [{"role": "user", "content": text}]
        if self.section.system:
            messages.insert(0, {"role": "system", "content": system})
        content = {"messages": messages, "tools": tools, "environment": definition, "most_tokens": MOST_TOKENS}
        return Example(text, text, "", content)

    def answer(self, model: Any, examples: Sequence[Example], on_units: OnUnits) -> Iterator[str]:
        """Write the assistant's turn; calls are executed in the example's environment, and their results given back."""
        decoder = Decoder(model, self._form)
        context = context_of(decoder.model.config)
        done = 0
        for some in _cut(examples):
            yield from self._answer_batch(decoder, context, some)
            done += len(some)
            on_units(done, len(examples))

    def _answer_batch(self, decoder: Decoder, context: int, examples: Sequence[Example]) -> list[str]:
        turns: list[list[dict[str, Any]]] = [[] for _ in examples]
        waiting = list(range(len(examples)))
        # a quarter of a short context: else one long reference would leave no prompt of the suite room
        most = min(examples[0].content["most_tokens"], max(LEAST_TOKENS, context // 4))
        for _ in range(MOST_CALLS + 1):
            prompts: dict[int, list[int]] = {}
            for at in waiting:
                content = examples[at].content
                try:
                    prompt = self._form.prompt([*content["messages"], *turns[at]], content["tools"])
                except TemplateFault as error:
                    turns[at].append(_assistant(f"(no answer: {error})"))
                    continue
                if len(prompt) + most > context:
                    turns[at].append(_assistant(f"(no answer: {len(prompt)} tokens leave no room in {context})"))
                    continue
                prompts[at] = prompt
            if not prompts:
                break
            said = dict(zip(prompts, decoder.write(list(prompts.values()), most), strict=True))
            waiting = [at for at in prompts if _go_on(turns[at], said[at].text, examples[at].content)]
        return [
            write_turn(turn) if example.content["tools"] else turn[-1]["content"]
            for turn, example in zip(turns, examples, strict=True)
        ]

    def measure(self, example: Example, prediction: str) -> Measured:
        """Count what an answer's calls, its report and its words lack."""
        if TOPIC in example.slices:
            question = Question("", "", tuple(example.reference.split("|")))
            is_wrong, calls = not question.is_answered(prediction), OPEN in prediction
            return Measured({GENERAL_ERRORS: (float(is_wrong), 1.0), SPURIOUS: (float(calls), 1.0)})
        tools = example.content["tools"]
        if not tools:
            return Measured({REPLY_ERRORS: (reply_error(prediction, example.reference), 1.0)})
        wanted, made = read_turn(example.reference), read_turn(prediction)
        counts = count_tool_turn(wanted, made, tools, asks=example.slices.get("turn") == ASKS)
        return Measured({**counts, REPLY_ERRORS: (reply_error(made.reply, wanted.reply), 1.0)})

    def show_example(self, example: Example) -> Shown:
        """Show the user's last message and what should follow."""
        return show_turn([example.content["messages"][-1], *turn_messages(example.reference)])

    def show_answer(self, answer: str) -> Shown:
        """Show an assistant's turn, calls and results as lines of their own."""
        return show_turn(turn_messages(answer))

    def export(self, base: Path, adapter: Path, out: Path) -> None:
        """Write the merged model and its tokenizer as transformers loads them.

        Raises:
            ModelError: the adapter belongs to another base, or is damaged.
            StoreError: `out` can't be written.
        """
        from tercet.train.loading import load

        wrapped: Any = load(self.load_base(base), adapter)
        merged = wrapped.merge_and_unload()
        try:
            out.mkdir(parents=True, exist_ok=True)
            merged.save_pretrained(out)
            self._form.tokenizer.save_pretrained(out)
            fsync_folder(out)
        except OSError as error:
            raise disk_error(out, error) from error


def context_of(config: Any) -> int:
    """Give the most tokens that a model sees at once; a row's mask knows no sliding window, so that bounds it too.

    Raises:
        ModelError: its configuration doesn't say, as that of a model without positions.
    """
    window, most = (getattr(config, name, None) for name in ("sliding_window", "max_position_embeddings"))
    if not most:
        raise ModelError(f"{config.name_or_path}: config.json has no max_position_embeddings; name another train.base")
    return min(int(most), int(window)) if window else int(most)


def _cut(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Cut into batches of examples that may be answered at the same length: no answer ends by its neighbours'."""
    for _, group in groupby(examples, key=lambda example: example.content["most_tokens"]):
        some = list(group)
        for start in range(0, len(some), BATCH_SIZE):
            yield some[start : start + BATCH_SIZE]


def _go_on(turn: list[dict[str, Any]], said: str, content: Mapping[str, Any]) -> bool:
    """Add what was said to a turn; where it calls tools that can be executed, their results too, and go on."""
    calls = parse(said) if content["tools"] else []
    if not calls:
        turn.append(_assistant(said))
        return False
    turn.append({**_assistant(before_calls(said)), "tool_calls": [_function(call) for call in calls]})
    if content["environment"] is None:
        return False
    environment = Environment.of(content["environment"])
    results = (canonical_json(environment.call(call.name, call.arguments)) for call in calls)
    turn += [{"role": "tool", "content": result} for result in results]
    return True


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _function(call: Call) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
