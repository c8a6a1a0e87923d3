"""Dialogs through a tokenizer's own chat template: which tokens the assistant wrote, and calls read back from text.

A template that writes tools, calls and results in a form that `parse` reads back is used as it is. For any other they
are folded into plain messages: signatures into the system message, a call as `<tool_call>{...}</tool_call>`, its
result as a message of the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import ModelError
from tercet.randomness import canonical_json
from tercet_text.calls import Call, Message

HOW_TO_CALL = 'To use a tool, write <tool_call>{"name": ..., "arguments": {...}}</tool_call> and nothing else.'
OPEN, CLOSE = "<tool_call>", "</tool_call>"
PROBE = Call("probe_tool", {"probe_key": "probe_value"})
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": PROBE.name,
        "description": "probe_description",
        "parameters": {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]},
    },
}
Tools = Sequence[Mapping[str, Any]]


def _probe(role: str) -> dict[str, Any]:
    return {"role": role, "content": f"probe_{role}"}


TURN = [_probe("user"), _probe("assistant")]
CALL = {"type": "function", "function": {"name": PROBE.name, "arguments": dict(PROBE.arguments)}}
CALLING = [
    _probe("user"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": PROBE.name, "content": "probe_result"},
    _probe("assistant"),
]
PROBES: tuple[tuple[str, Sequence[Message], Tools], ...] = (
    ("a dialog of one turn", TURN, ()),
    ("a dialog of two turns", TURN * 2, ()),
    ("a dialog with a call and its result", CALLING, [PROBE_TOOL]),
)
MEND = "mend its chat template, or name another train.base"


class TemplateFault(ValueError):
    """The template can't render a dialog, or not so that a turn of the assistant's follows what asks for it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a dialog, and the places of those to learn: what the assistant wrote, with the end of its turns."""

    ids: tuple[int, ...]
    counted: tuple[int, ...]


class ChatFormat:
    """One tokenizer's chat format. `ends` are the tokens that end a turn."""

    def __init__(self, tokenizer: Any, ends: set[int]) -> None:
        self.tokenizer, self.ends = tokenizer, ends
        self.knows_tools = True  # as long as it is asked whether it does
        self.knows_system = "probe_system" in self._try([{"role": "system", "content": "probe_system"}, _probe("user")])
        self.knows_tools = self._has_tools()

    @classmethod
    def of(cls, path: Path) -> ChatFormat:
        """Read the tokenizer in a model's folder.

        Raises:
            ModelError: there is none, it has no chat template, or the template doesn't fit dialogs of two turns.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path}: no tokenizer that can be read: {str(error)[:200]}") from error
        if not tokenizer.chat_template:
            raise ModelError(f"{path}: has no chat template; name an instruction-tuned model in train.base")
        found = cls(tokenizer, _ends(tokenizer, path))
        for what, messages, tools in PROBES:
            if fault := found._fault(messages, tools):
                raise ModelError(f"{path}: its chat template can't be trained on: {what}: {fault}; {MEND}")
        return found

    def pieces(self, messages: Sequence[Message], tools: Tools = ()) -> list[Tokens]:
        """Turn a dialog into tokens, those of the plain template, and find what the assistant wrote.

        That is one piece where the template writes the beginning of a dialog as it stands in the whole. One that
        writes a turn otherwise once it is past (Qwen3 leaves out its thoughts) gives a piece for each turn of the
        assistant's: the dialog up to it, as the model will be asked, with nothing but that turn to learn.

        Raises:
            TemplateFault: the template can't render it.
        """
        folded = self.fold(messages, tools)
        if "{% generation %}" in self.tokenizer.chat_template:
            return [self._marked(folded, tools)]
        ends = [at for at, message in enumerate(folded, 1) if message["role"] == "assistant"]
        turns = [self._turn(folded[:end], tools) for end in ends]
        whole = self._render(folded, tools)
        if all(whole.startswith(text) for text, _ in turns):
            return [self._tokens(whole, [(start, len(text)) for text, start in turns])]
        return [self._tokens(text, [(start, len(text))]) for text, start in turns]

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Give the tokens that the assistant's next turn follows."""
        text = self._render(self.fold(messages, tools), tools, prompt=True)
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def fold(self, messages: Sequence[Message], tools: Tools = ()) -> list[dict[str, Any]]:
        """Write messages so that the template can hold them; as they are where it can."""
        folded: list[dict[str, Any]] = [dict(message) for message in messages]
        if not self.knows_tools:
            folded = _fold_calls(folded)
            if tools:
                folded = _fold_tools(folded, tools)
        if not self.knows_system and folded and folded[0]["role"] == "system":
            system = folded.pop(0)
            if not folded or folded[0]["role"] != "user":
                raise TemplateFault("its system message isn't followed by the user's")
            folded[0] = {**folded[0], "content": f"{system['content']}\n\n{folded[0]['content']}"}
        return folded

    def read(self, ids: Sequence[int]) -> str:
        """Decode what a model wrote, up to the end of its turn."""
        end = next((at for at, token in enumerate(ids) if token in self.ends), len(ids))
        text: str = self.tokenizer.decode(ids[:end], skip_special_tokens=not self.knows_tools)
        return text.strip()

    def _turn(self, messages: Sequence[Message], tools: Tools) -> tuple[str, int]:
        """Give a dialog that ends in a turn of the assistant's as text, and where that turn begins."""
        before, text = self._render(messages[:-1], tools, prompt=True), self._render(messages, tools)
        if not text.startswith(before):
            raise TemplateFault("it asks for a turn otherwise than it renders what stands before it")
        return text, len(before)

    def _tokens(self, text: str, spans: Sequence[tuple[int, int]]) -> Tokens:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        counted: list[int] = []
        for start, end in spans:
            places = [at for at, (a, b) in enumerate(encoded["offset_mapping"]) if at and a < end and b > start]
            ending = [at for at in places if encoded["input_ids"][at] in self.ends]
            counted += [at for at in places if not ending or at <= ending[-1]]
        return Tokens(tuple(encoded["input_ids"]), tuple(counted))

    def _marked(self, messages: Sequence[Message], tools: Tools) -> Tokens:
        """Let the template say itself what the assistant wrote."""
        given = self._apply(messages, tools, return_dict=True, return_assistant_tokens_mask=True)
        counted = tuple(at for at, mark in enumerate(given["assistant_masks"]) if mark and at)
        return Tokens(tuple(given["input_ids"]), counted)

    def _render(self, messages: Sequence[Message], tools: Tools, *, prompt: bool = False) -> str:
        text: str = self._apply(messages, tools, tokenize=False, add_generation_prompt=prompt)
        return text

    def _apply(self, messages: Sequence[Message], tools: Tools, **wishes: Any) -> Any:
        from jinja2 import TemplateError

        wishes["enable_thinking"] = False  # to a template that can think: our dialogs hold answers alone
        try:
            return self.tokenizer.apply_chat_template(list(messages), tools=self._given(tools), **wishes)
        except (TemplateError, TypeError, KeyError) as error:
            raise TemplateFault(str(error)[:200]) from error

    def _given(self, tools: Tools) -> list[Any] | None:
        return [dict(tool) for tool in tools] if tools and self.knows_tools else None

    def _fault(self, messages: Sequence[Message], tools: Tools) -> str:
        """Say why a dialog can't be trained on; empty when it can."""
        try:
            pieces = self.pieces(messages, tools)
        except TemplateFault as error:
            return str(error)
        except (NotImplementedError, ValueError):  # a tokenizer written in Python
            return "its tokenizer doesn't say where tokens stand in a text, as those of tokenizer.json do"
        num_ends = sum(piece.ids[at] in self.ends for piece in pieces for at in piece.counted)
        if num_ends < sum(message["role"] == "assistant" for message in messages):
            return "an assistant's turn isn't ended by a token that ends an answer"
        return ""

    def _try(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        try:
            return self._render(messages, tools)
        except TemplateFault:
            return ""

    def _has_tools(self) -> bool:
        """Say whether the template shows tools and results, writes calls as `parse` reads them, and always alike."""
        text = self._try(CALLING, [PROBE_TOOL])
        written = self._try(CALLING[:2])
        is_shown = "probe_description" in text and "probe_result" in text and parse(written) == [PROBE]
        return is_shown and not self._fault(CALLING, [PROBE_TOOL])


def parse(text: str) -> list[Call] | None:
    """Read the calls in a decoded answer: none where it makes none, None where it makes one that can't be read."""
    if OPEN not in text:
        return []
    calls = []
    for part in text.split(OPEN)[1:]:
        try:
            value = json.loads(part.split(CLOSE)[0])
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        if not isinstance(value.get("arguments"), dict):
            return None
        calls.append(Call(value["name"], value["arguments"]))
    return calls


def before_calls(text: str) -> str:
    """Give what an answer says before its calls."""
    return text.split(OPEN, maxsplit=1)[0].strip()


def write_call(call: Call) -> str:
    """Write a call as text."""
    return f'{OPEN}{{"name": {json.dumps(call.name)}, "arguments": {_json(call.arguments)}}}{CLOSE}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _ends(tokenizer: Any, path: Path) -> set[int]:
    """Collect the tokens that end an answer: the tokenizer's, and those of the model's own settings."""
    named: list[Any] = [tokenizer.eos_token_id]
    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads((path / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        named += found if isinstance(found, list) else [found]
    return {token for token in named if isinstance(token, int)}


def _fold_calls(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Write calls as text, and the results that follow one another as one message of the user's."""
    folded: list[dict[str, Any]] = []
    previous = ""
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "tool":
            result = f"<tool_response>{content}</tool_response>"
            if previous == "tool":
                folded[-1]["content"] += f"\n{result}"
            else:
                folded.append({"role": "user", "content": result})
        else:
            calls = [
                write_call(Call(one["function"]["name"], one["function"]["arguments"]))
                for one in message.get("tool_calls") or ()
            ]
            folded.append({"role": role, "content": "\n".join([content, *calls] if content else calls or [""])})
        previous = role
    return folded


def _fold_tools(messages: list[dict[str, Any]], tools: Tools) -> list[dict[str, Any]]:
    """Say in the system message which tools there are, unless it does, and how to call one."""
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
    functions = [tool.get("function", tool) for tool in tools]
    lines = [system] if system else []
    if any(f"{one['name']}(" not in system for one in functions):
        lines += ["Tools:", *(_signature(one) for one in functions)]
    return [{"role": "system", "content": "\n".join([*lines, HOW_TO_CALL])}, *messages]


def _signature(function: Mapping[str, Any]) -> str:
    """Describe a function in one line."""
    parameters = (function.get("parameters") or {}).get("properties") or {}
    said = ", ".join(f"{name}: {canonical_json(schema)}" for name, schema in parameters.items())
    return f"{function['name']}({said}): {function.get('description', '')}"
