"""Write planned tool dialogs out: the user's words, the assistant's calls, their results, and what is made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tercet.modality import Needs, Resources
from tercet.randomness import canonical_json, digest
from tercet.records import Item, Made, ModelUse
from tercet_text.calls import Call
from tercet_text.dialog import message
from tercet_text.environment import Environment
from tercet_text.phrases import Fragment, Rules
from tercet_text.recipe import TextRecipe
from tercet_text.script import Cast
from tercet_text.speaking import in_register, join, write
from tercet_text.wording import GREETINGS

VERSION = "1"  # raise it when the same item would be written otherwise
TOOLS = ModelUse("tercet_text:tools", digest("tercet_text:tools", VERSION), "Apache-2.0", "free")
SPACE = Fragment(" ", False)
AGAIN = ("", "And ", "[One more thing|Something else|Another question]: ", "[Thanks|Thank you|Great]. ")
RULES: Rules = {}
GREETS, LEADS = 0.4, 0.3  # shares of the dialogs: most people come to the point, and a small model's context is short


class ToolDialogs:
    """Writes each dialog from its item alone; results come from the item's environment."""

    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 256

    def __init__(self, section: TextRecipe, resources: Resources) -> None:
        self._cast = Cast(section)
        self._resources = resources

    def __call__(self, items: Sequence[Item]) -> Iterator[Made]:
        """Write one dialog per item."""
        for item in items:
            environment = Environment.of(item.spec["environment"])
            rng = random.Random(self._resources.seed_for(item, "generate"))
            system = system_message(self._cast.section.role, environment) if self._cast.section.system else ""
            messages = [message("system", system)] if system else []
            messages += Telling(self._cast, item.spec, environment, rng).messages()
            tools = [tool.function_schema() for tool in environment.tools.values()]
            payload = {
                "messages": messages,
                "citations": [],
                "tools": canonical_json(tools),
                "intent": item.spec["about"],
                "persona": item.spec["persona"],
                "mood": item.spec["mood"],
                "edge_case": item.spec["kind"],
            }
            asked = [phrase for exchange in item.spec["exchanges"] for phrase in asked_in(exchange)]
            parameters = {"environment": environment.definition, "tools_version": VERSION, "asked": asked}
            yield Made(payload, TOOLS, parameters)


def asked_in(exchange: Mapping[str, Any]) -> list[str]:
    """Name the phrase behind each user's message of an exchange; an answer hangs on the phrase that began it."""
    return [exchange["ask"]] * (2 if exchange.get("missing") else 1)


def system_message(role: str, environment: Environment) -> str:
    """State the role and the tools' signatures: a small model's chat template may know no tools."""
    return "\n".join((f"You are {role}. Tools:", *(tool.signature() for tool in environment.tools.values())))


class Telling:
    """The messages of one dialog."""

    def __init__(self, cast: Cast, spec: Mapping[str, Any], environment: Environment, rng: random.Random) -> None:
        self.spec, self.environment, self.rng = spec, environment, rng
        self.persona, self.mood = cast.personas[spec["persona"]], cast.moods[spec["mood"]]

    def messages(self) -> list[dict[str, str]]:
        """Write every exchange; only the first begins with a greeting."""
        messages: list[dict[str, str]] = []
        for exchange in self.spec["exchanges"]:
            before = self._write(AGAIN, {}) if messages else self._opening()
            messages += self._called(exchange, before) if "tool" in exchange else self._chatted(exchange, before)
        return messages

    def _called(self, exchange: Mapping[str, Any], before: list[Fragment]) -> Iterator[dict[str, str]]:
        call = Call(exchange["tool"], exchange["arguments"])
        values = _slots(call.arguments)
        yield self._user(exchange["ask"], values, before)
        if exchange["missing"]:
            yield message("assistant", self._say(exchange["question"], values))
            yield self._user(exchange["answer"], values, [])
        result = self.environment.call(call.name, call.arguments)
        yield message("assistant", "", [call])
        yield message("tool", canonical_json(result))
        yield message("assistant", self._say(exchange["report"], {**values, **_slots(result)}))

    def _chatted(self, exchange: Mapping[str, Any], before: list[Fragment]) -> Iterator[dict[str, str]]:
        yield self._user(exchange["ask"], exchange["values"], before)
        yield message("assistant", self._say(exchange["report"], exchange["values"]))

    def _opening(self) -> list[Fragment]:
        """Greet, or say who asks or how they feel; most do neither."""
        parts: list[Fragment] = []
        if self.rng.random() < GREETS:
            parts += [*self._write(GREETINGS[self.persona.register_], {}), SPACE]
        if self.rng.random() < LEADS:
            lead = self.persona.lead if self.rng.random() < 0.5 else self.mood.lead
            parts += [*self._write(lead, {}), SPACE]
        return parts

    def _user(self, phrase: str, values: Mapping[str, str], before: list[Fragment]) -> dict[str, str]:
        parts = [*before, *self._write((phrase,), values)]
        return message("user", in_register(self.rng, self.persona.register_, parts))

    def _say(self, phrase: str, values: Mapping[str, str]) -> str:
        return join(self._write((phrase,), values))

    def _write(self, phrases: Sequence[str], values: Mapping[str, str]) -> list[Fragment]:
        return write(self.rng, phrases, values, RULES)


def _slots(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
