"""Ordinary English by small grammars of our own: what shows forgetting, and what training keeps the base's answers on.

Two families that share no template: `general` is only ever measured, `replay` is trained on. Each sentence is computed
from its index; templates take turns, and no sentence comes twice before its family is exhausted. Numbers and dates are
written as words, so that every engine reads them alike.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from math import prod
from typing import Literal

from tercet.permutation import mix, permute

Family = Literal["general", "replay"]
CALIBRATION_SEED = 20_001  # a fixed one: a voice's calibration must not depend on the recipe

SLOTS: dict[str, tuple[str, ...]] = {
    "name": ("Anna", "Peter", "Maria", "David", "Laura", "Thomas", "Helen", "Martin", "Julia", "Robert", "Susan",
             "Daniel"),
    "friend": ("my sister", "my brother", "our neighbour", "my uncle", "my cousin", "the teacher", "an old friend",
               "the landlord", "my grandmother", "the new manager", "his father", "her daughter"),
    "place": ("London", "Boston", "Dublin", "Chicago", "Sydney", "Toronto", "Edinburgh", "Seattle", "Manchester",
              "Denver", "Bristol", "Auckland"),
    "spot": ("the library", "the station", "the market", "the museum", "the town hall", "the bakery", "the park",
             "the post office", "the harbour", "the theatre", "the school", "the old bridge"),
    "room": ("kitchen", "garage", "garden", "bathroom", "hallway", "cellar", "bedroom", "attic", "office",
             "living room"),
    "thing": ("umbrella", "bicycle", "notebook", "jacket", "camera", "lamp", "suitcase", "ladder", "guitar", "blanket",
              "basket", "hammer"),
    "food": ("bread", "cheese", "soup", "rice", "apples", "potatoes", "pancakes", "tomatoes", "noodles", "onions",
             "chocolate", "carrots"),
    "animal": ("dog", "cat", "horse", "rabbit", "goat", "parrot", "donkey", "sheep", "duck", "squirrel"),
    "colour": ("red", "blue", "green", "yellow", "grey", "brown", "white", "black", "purple", "pink"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
              "November", "December"),
    "nth": ("first", "second", "third", "fifth", "eighth", "tenth", "twelfth", "fifteenth", "nineteenth", "twentieth",
            "twenty fourth", "thirtieth"),
    "number": ("three", "four", "six", "seven", "nine", "eleven", "twelve", "fifteen", "eighteen", "twenty",
               "thirty five", "forty"),
    "hundreds": ("one hundred", "two hundred", "three hundred and fifty", "four hundred", "six hundred and ten",
                 "eight hundred", "nine hundred and twenty", "two thousand", "five thousand", "twelve thousand"),
    "hour": ("six", "seven", "eight", "nine", "ten", "eleven", "noon", "half past two", "quarter to four",
             "five thirty", "midnight"),
    "when": ("this morning", "yesterday", "last night", "last week", "two days ago", "in the afternoon",
             "on the weekend", "a month ago", "before lunch", "after work"),
    "weather": ("rain", "snow", "fog", "wind", "sunshine", "frost", "thunder", "hail"),
    "job": ("painter", "plumber", "singer", "farmer", "pilot", "carpenter", "waiter", "tailor", "gardener", "driver",
            "writer", "sailor"),
    "hobby": ("painting", "swimming", "cooking", "chess", "photography", "gardening", "hiking", "dancing", "fishing",
              "sewing", "reading", "skating"),
    "feeling": ("happy", "tired", "surprised", "nervous", "proud", "bored", "excited", "worried", "grateful",
                "curious"),
}  # fmt: skip

GENERAL = (
    "{name} left the {thing} in the {room} and went to {spot}.",
    "The train to {place} leaves at {hour} on {day}.",
    "We bought some {food} near {spot} {when}.",
    "Do you remember the {colour} {thing} that {name} used to have?",
    "There were {number} people waiting in front of {spot}.",
    "{name} was born on the {nth} of {month} in {place}.",
    "My neighbour has a {colour} door and a very loud {animal}.",
    "They expect {weather} in {place} until {day}.",
    "It costs {hundreds} dollars to repair the roof of the {room}.",
    "She has worked as a {job} in {place} for {number} years.",
    "Could you bring the {thing} back before {day}?",
    "The {animal} slept under the table while we ate {food}.",
    "Turn left at {spot} and walk for {number} minutes.",
    "I have been interested in {hobby} since {month}.",
    "{name} and {friend} went to {place} together {when}.",
    "What time does {spot} open on {day}?",
    "He felt {feeling} when the letter from {place} arrived.",
    "The {room} was painted {colour} by a {job}.",
    "About {hundreds} visitors came to {spot} in {month}.",
    "Nobody told {name} that the meeting had moved to {hour}.",
    "If the {weather} stops, we can go to {spot} after all.",
    "His {nth} book is about a {job} from {place}.",
    "Put the {food} on the shelf next to the {thing}.",
    "{name} would rather talk about {hobby} than about the {weather}.",
    "The bus number {number} stops right behind {spot}.",
    "{name} asked whether the {animal} could stay in the {room}.",
    "We missed the beginning because of the {weather} on {day}.",
    "A {job} came {when} to look at the {room}.",
    "Has anybody seen the keys to the {room} since {hour}?",
    "The concert in {place} starts at {hour}, not at eight thirty.",
    "{friend} gave me a {colour} {thing} for my birthday.",
    "On the {nth} floor you will find the {room} and a small balcony.",
    "They grow {food} behind the house, and {number} kinds of flowers.",
    "Everyone was {feeling} about the news from {place}.",
    "You need {number} eggs and some {food} for this recipe.",
    "The children drew a {colour} {animal} on the wall.",
    "Please call {name} at {hour} and ask about the {thing}.",
    "In {month} the days in {place} are getting longer.",
    "Why did {friend} sell the {thing} so cheaply?",
    "The river near {spot} rose by {number} inches {when}.",
    "{name} won {hundreds} dollars and spent them on {hobby}.",
    "Our flight was delayed in {place} for {number} hours.",
    "The old {job} told us a story about a {colour} {animal}.",
    "From the window of the {room} you can see {spot}.",
)

REPLAY = (
    "I met {name} at {spot} on {day} afternoon.",
    "Is it true that {friend} is moving to {place}?",
    "The {thing} you lent me {when} is broken.",
    "Let us have {food} for dinner on {day}.",
    "The {colour} car belongs to the {job} next door.",
    "Tickets for {spot} are {number} pounds each.",
    "{name} never learned how to ride a {animal}.",
    "By the {nth} of {month} everything has to be finished.",
    "We have {weather} again, so the game in {place} was cancelled.",
    "How many plates of {food} do {number} people need?",
    "She wants to become a {job} and live in {place}.",
    "Their {animal} ran away {when} and came back at {hour}.",
    "Close the window of the {room} before the {weather} begins.",
    "The museum shows {hundreds} photographs of {place}.",
    "My favourite place for {hobby} is a village near {place}.",
    "Take the {thing} with you, it will be cold at {hour}.",
    "Who is going to clean the {room} on {day}?",
    "{name} sounded {feeling} on the phone {when}.",
    "The {nth} question in the quiz was about {hobby}.",
    "There is a new shop for {hobby} behind {spot}.",
    "I paid {hundreds} dollars for that {colour} {thing}.",
    "Every {day} {friend} cooks {food} for the whole family.",
    "The road from {place} to the coast is closed in {month}.",
    "Someone forgot a {colour} {thing} on the bus.",
    "Would {name} like to see the {animal} in the garden?",
    "The lights in the {room} went out at {hour}.",
    "It took the {job} {number} hours to fix the {thing}.",
    "Last {month} we walked all the way from {spot} to the sea.",
    "They were {feeling} to hear that {name} had arrived safely.",
    "You can leave your {thing} with the {job} at the entrance.",
    "No, the {animal} is not allowed to eat {food}.",
    "The {nth} of {month} falls on a {day} this year.",
    "At {hour} the whole street smelled of {food}.",
    "Both {name} and {friend} enjoy {hobby}.",
)

FAMILIES: dict[Family, tuple[str, ...]] = {"general": GENERAL, "replay": REPLAY}
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A sentence with slots; `count` sentences can be made of it."""

    text: str
    slots: tuple[str, ...]
    count: int

    @classmethod
    def parse(cls, text: str) -> Template:
        """Find the slots."""
        slots = tuple(match.group(1) for match in SLOT.finditer(text))
        return cls(text, slots, prod(len(SLOTS[slot]) for slot in slots))

    def fill(self, number: int) -> str:
        """Make sentence `number`, reading it as digits, one per slot."""
        words = []
        for slot in self.slots:
            number, digit = divmod(number, len(SLOTS[slot]))
            words.append(SLOTS[slot][digit])
        sentence = SLOT.sub(lambda _: words.pop(0), self.text)
        return sentence[0].upper() + sentence[1:]


@functools.cache
def templates(family: Family) -> tuple[Template, ...]:
    """List a family's templates."""
    return tuple(Template.parse(text) for text in FAMILIES[family])


def num_sentences(family: Family) -> int:
    """Count the distinct sentences of a family."""
    return sum(template.count for template in templates(family))


def general_sentence(family: Family, index: int, seed: int) -> str:
    """Give the sentence at `index`; past `num_sentences` they begin again."""
    which, number = _place(family, index % num_sentences(family), seed)
    template = templates(family)[which]
    return template.fill(permute(number, template.count, mix(seed) + which))


def calibration_sentences(count: int) -> list[str]:
    """Give the sentences on which a voice is calibrated: always the same, and none that measures an adapter."""
    return [general_sentence("replay", index, CALIBRATION_SEED) for index in range(count)]


def _place(family: Family, index: int, seed: int) -> tuple[int, int]:
    """Give (template, sentence number): templates take turns until the smallest is used up, then those left do."""
    counts = [template.count for template in templates(family)]
    done = 0
    for limit in sorted(set(counts)):
        able = [which for which, count in enumerate(counts) if count >= limit]
        size = (limit - done) * len(able)
        if index < size:
            turn, place = divmod(index, len(able))
            return able[permute(place, len(able), mix(seed + turn))], done + turn
        index -= size
        done = limit
    raise IndexError(f"sentence {index} past the end of {family}")
