"""Play a planned scenario: the user's lines, the assistant's answers from the documents, and what each answer is for.

A language model takes over the assistant's part by keeping the user's lines and following each `direction`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tercet_text.documents import on_one_line
from tercet_text.intents import OBSCURE
from tercet_text.phrases import Fragment
from tercet_text.recipe import Intent, Mood, Persona, TextRecipe
from tercet_text.speaking import in_register, join, misspell, write
from tercet_text.wording import ASSISTANT, FRAMES, GREETINGS, USER

SPACE = Fragment(" ", False)
ROOM_TO_GREET = 4  # exchanges: a greeting, two for an edge case, one more
ANSWER = "Answer from the excerpts alone; when they do not hold the answer, say so."


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer; `quotes` are what the answer rests on."""

    user: str
    assistant: str
    direction: str
    quotes: tuple[Mapping[str, str], ...] = ()


@dataclass
class Cast:
    """The recipe's intents, personas and moods by name, looked up once per worker."""

    section: TextRecipe
    intents: Mapping[str, Intent] = field(init=False)
    personas: Mapping[str, Persona] = field(init=False)
    moods: Mapping[str, Mood] = field(init=False)

    def __post_init__(self) -> None:
        self.intents = {one.name: one for one in self.section.intents}
        self.personas = {one.name: one for one in self.section.personas}
        self.moods = {one.name: one for one in self.section.moods}


class Script:
    """The exchanges of one dialog."""

    def __init__(self, cast: Cast, spec: Mapping[str, Any], seed: int) -> None:
        self.rng = random.Random(seed)
        self.cast, self.spec = cast, spec
        self.persona, self.mood = cast.personas[spec["persona"]], cast.moods[spec["mood"]]
        self.register = self.persona.register_
        expert = cast.section.expert
        self.values = {
            "term": spec["term"],
            "other_term": spec["other_term"],
            "expert": expert,
            "expert_cap": expert[:1].upper() + expert[1:],
        }
        self.has_greeted = self.has_looked_up = False
        self.quoted: set[str] = set()
        self.last: Mapping[str, str] | None = None  # the quote given last

    def exchanges(self) -> list[Exchange]:
        """Write the whole dialog: the heart of the scenario, follow-ups as there is room, a good-bye."""
        turns, asks = self.spec["turns"], self.spec["asks"]
        done: list[Exchange] = []
        if turns >= ROOM_TO_GREET and self.rng.random() < 0.2:
            user = in_register(
                self.rng, self.register, [*self._write(GREETINGS[self.register]), SPACE, *self._write(USER["hello"])]
            )
            done.append(self._exchange(user, self._reply("welcome"), "Greet, and ask what it is about."))
        self.has_greeted = bool(done)
        done += self._heart()
        closes = turns - len(done) >= 1 and self.rng.random() < 0.8
        follow_ups = self._follow_ups(asks[1:])
        while len(done) < turns - closes:
            done.append(next(follow_ups))
        if closes:
            name = "grumble" if self.spec["edge_case"] in ("angry", "pressure") else "thanks"
            done.append(self._exchange(self._say(name), self._reply("bye"), "Say good-bye in one sentence."))
        return done

    def _heart(self) -> Iterator[Exchange]:
        edge = self.spec["edge_case"]
        plays: dict[str, Callable[[], Iterator[Exchange]]] = {
            "missing_slot": self._missing_slot,
            "correction": self._correction,
            "ambiguous_term": self._ambiguous_term,
            "misspelt_term": self._misspelt_term,
        }
        if edge in plays:
            yield from plays[edge]()
            return
        main = self.spec["asks"][0]
        yield self._answered(self._opening(self._question(main)), main)
        if edge in ("out_of_scope", "pressure", "angry"):
            yield self._aside(edge)
        elif edge == "topic_switch":
            yield self._topic_switch()
        elif edge == "no_answer":
            yield self._no_answer()

    # -- edge cases ------------------------------------------------------------------------------------------------

    def _missing_slot(self) -> Iterator[Exchange]:
        main = self.spec["asks"][0]
        vague = join(self._write(USER["vague"])).lower()
        opening = self._opening(self._question(main, term=vague))
        yield self._exchange(opening, self._reply("which"), "Ask which product is meant; don't answer yet.")
        yield self._answered(self._say("name_it"), main)

    def _ambiguous_term(self) -> Iterator[Exchange]:
        main = self.spec["asks"][0]
        opening = self._opening([*self._write(USER["either"]), SPACE, *self._question(main, term="it")])
        yield self._exchange(opening, self._reply("either"), "Say that these are two things, and ask which one it is.")
        yield self._answered(self._say("name_it"), main)

    def _misspelt_term(self) -> Iterator[Exchange]:
        main = self.spec["asks"][0]
        wrong = misspell(self.rng, self.spec["term"])
        opening = self._opening(self._question(main, term=wrong))
        reply = self._reply("did_you_mean", misspelt=wrong)
        yield self._exchange(opening, reply, f"Ask whether {self.spec['term']} is meant; don't answer yet.")
        yield self._answered(self._say("yes"), main)

    def _correction(self) -> Iterator[Exchange]:
        main, detour = self.spec["asks"][0], self.spec["detour"]
        swapped = {"term": self.spec["other_term"], "other_term": self.spec["term"]}
        yield self._answered(self._opening(self._question(main, **swapped)), detour)
        yield self._answered(self._say("meant"), main, before="switch")

    def _aside(self, edge: str) -> Exchange:
        reply, direction = {
            "out_of_scope": ("refuse", "Decline in a friendly way: this is outside the documents."),
            "pressure": ("hold", "Stay with the documents; give no personal advice; name whom to ask."),
            "angry": ("calm", "Apologise, stay calm, and offer to hand over to a person."),
        }[edge]
        return self._exchange(self._say(edge), self._reply(reply), direction)

    def _topic_switch(self) -> Exchange:
        detour = self.spec["detour"]
        swapped = {"term": self.spec["other_term"], "other_term": self.spec["term"]}
        parts = [*self._write(USER["switch"]), *self._question(detour, **swapped)]
        return self._answered(in_register(self.rng, self.register, parts), detour)

    def _no_answer(self) -> Exchange:
        obscure = OBSCURE[self.spec["obscure"]]
        user = in_register(self.rng, self.register, self._write(obscure["ask"]))
        reply = self._reply("none", **self._aspect(obscure["aspect"], self.values))
        return self._exchange(user, f"{reply} {self._reply('next')}".strip(), "Say that the documents don't hold this.")

    # -- follow-ups ------------------------------------------------------------------------------------------------

    def _follow_ups(self, asks: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
        """Yield follow-up questions, now and then one about the answer itself; at last good-byes."""
        about_answer = ["source", "short"]
        self.rng.shuffle(about_answer)
        for ask in asks:
            if about_answer and self.has_looked_up and self.rng.random() < 0.3:
                yield self._about_answer(about_answer.pop())
            user = in_register(self.rng, self.register, self._write(self.cast.intents[ask["intent"]].follow))
            yield self._answered(user, ask)
        for name in about_answer if self.has_looked_up else ():
            yield self._about_answer(name)
        while True:
            yield self._exchange(self._say("thanks"), self._reply("bye"), "Say good-bye in one sentence.")

    def _about_answer(self, name: str) -> Exchange:
        if name == "source":
            reply, direction = ("sources" if self.last else "no_source"), "Name the document; invent no source."
        else:
            reply, direction = ("short" if self.last else "short_none"), "Say it again in one short sentence."
        return self._exchange(
            self._say(name), self._reply(reply, **self._quote_values(self.last)), direction, self.last
        )

    # -- lines -----------------------------------------------------------------------------------------------------

    def _answered(self, user: str, ask: Mapping[str, Any], before: str = "ack") -> Exchange:
        """Answer one looked-up question; a two-term question gets both terms' lines."""
        intent = self.cast.intents[ask["intent"]]
        is_reply = bool(intent.reply)
        parts = [] if is_reply and before == "ack" else [self._reply(before)]
        quotes: list[Mapping[str, str]] = []
        direction = ANSWER
        if is_reply:
            reply = join(self._write(intent.reply))
            parts.append(reply)
            direction = f"Reply in this sense: {reply}"
            if ask["kind"] in ("answer", "general"):
                parts.append(self._look_up(ask, intent, quotes))
        else:
            parts.append(self._look_up(ask, intent, quotes))
            detour = self.spec["detour"]
            if (
                intent.needs == "two_terms"
                and detour["term"] != ask["term"]
                and detour["kind"] in ("answer", "partial")
            ):
                parts.append(self._look_up(detour, intent, quotes))
            parts.append(self._reply("offer" if quotes else "next"))
        return Exchange(user, " ".join(filter(None, parts)), direction, tuple(quotes))

    def _look_up(self, ask: Mapping[str, Any], intent: Intent, quotes: list[Mapping[str, str]]) -> str:
        quote = ask["quotes"][0] if ask["quotes"] else None
        values = {**self.values, "term": ask["term"]}
        if ask["term"] == self.spec["other_term"]:
            values["other_term"] = self.spec["term"]
        given = {**self._quote_values(quote), **self._aspect(intent.aspect, values), "term": ask["term"]}
        self.last, self.has_looked_up = quote, True
        if quote is None:
            return self._reply("none", **given)
        is_repeated = quote["quote"] in self.quoted
        self.quoted.add(quote["quote"])
        quotes.append(quote)
        kind = "again" if is_repeated else {"answer": "cite"}.get(ask["kind"], ask["kind"])
        return self._reply(kind, **given)

    def _opening(self, question: list[Fragment]) -> str:
        """Begin the talk: greeting, who I am, how I feel, the question, a last word; most people leave some out."""
        rng, terse = self.rng, self.register == "terse"
        parts = [] if self.has_greeted else [*self._write(GREETINGS[self.register]), SPACE]
        leads = [self.persona.lead] * (rng.random() < (0.3 if terse else 0.7)) + [self.mood.lead] * (
            rng.random() < 0.75
        )
        rng.shuffle(leads)
        for lead in leads:
            parts += [*self._write(lead), SPACE]
        parts += [*self._write(FRAMES[self.register]), *question]
        if rng.random() < 0.45:
            parts += [SPACE, *self._write(self.mood.tail)]
        return in_register(rng, self.register, parts)

    def _question(self, ask: Mapping[str, Any], **given: str) -> list[Fragment]:
        return self._write(self.cast.intents[ask["intent"]].ask, **given)

    def _write(self, sources: Sequence[str], **given: str) -> list[Fragment]:
        return write(self.rng, sources, {**self.values, **given}, USER)

    def _say(self, name: str) -> str:
        return in_register(self.rng, self.register, self._write(USER[name]))

    def _reply(self, name: str, **given: str) -> str:
        return join(write(self.rng, ASSISTANT[name], {**self.values, **given}, ASSISTANT))

    def _exchange(self, user: str, assistant: str, direction: str, quote: Mapping[str, str] | None = None) -> Exchange:
        return Exchange(user, assistant, direction, (quote,) if quote else ())

    def _aspect(self, phrase: str, values: Mapping[str, str]) -> dict[str, str]:
        text = "".join(part.text for part in write(self.rng, (phrase,), values, {}))
        return {"aspect": text, "aspect_cap": text[:1].upper() + text[1:]}

    @staticmethod
    def _quote_values(quote: Mapping[str, str] | None) -> dict[str, str]:
        if not quote:
            return {}
        return {"title": quote["title"], "document": quote["document"], "quote": on_one_line(quote["quote"])}
