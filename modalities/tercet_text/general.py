"""General questions with short answers that can be checked: what a small chat model knows, and must not forget.

Written for this purpose, so free of terms. Half of them judge; the other half is for whoever tunes a training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tercet.errors import SourceError
from tercet.sources import read_examples

CAPITALS = (
    "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Portugal Lisbon, Greece Athens, Austria Vienna, "
    "Poland Warsaw, Hungary Budapest, Ireland Dublin, Norway Oslo, Sweden Stockholm, Finland Helsinki, Denmark "
    "Copenhagen, Russia Moscow, Turkey Ankara, Egypt Cairo, Kenya Nairobi, Japan Tokyo, China Beijing, India Delhi, "
    "Thailand Bangkok, Vietnam Hanoi, Cuba Havana, Canada Ottawa, Australia Canberra, Peru Lima, Chile Santiago"
)
CONTINENTS = (
    "Kenya Africa, Egypt Africa, Nigeria Africa, Morocco Africa, Japan Asia, India Asia, China Asia, Vietnam Asia, "
    "France Europe, Poland Europe, Italy Europe, Sweden Europe, Germany Europe, Mongolia Asia, Ghana Africa"
)
LANGUAGES = (
    "France French, Germany German, Italy Italian, Japan Japanese, Brazil Portuguese, Mexico Spanish, Russia Russian, "
    "Greece Greek, Poland Polish, Sweden Swedish, Turkey Turkish, Portugal Portuguese, Australia English, Peru Spanish"
)
OPPOSITES = (
    "hot cold, big small|little, day night, up down, left right, fast slow, happy sad|unhappy, open closed|close|shut, "
    "light dark|heavy, old young|new, rich poor, wet dry, full empty, hard soft|easy, early late, high low, "
    "long short, near far, strong weak, clean dirty, in out, first last, love hate, win lose, begin end|finish, "
    "inside outside, push pull, above below, buy sell, quiet loud|noisy"
)
YOUNG = (
    "dog puppy|pup, cat kitten, cow calf, sheep lamb, horse foal, goat kid, pig piglet, duck duckling, hen chick, "
    "bear cub, lion cub, frog tadpole, deer fawn, kangaroo joey"
)
PLURALS = (
    "child children, mouse mice, foot feet, tooth teeth, man men, woman women, goose geese, person people, "
    "leaf leaves, knife knives, city cities, box boxes, wolf wolves, baby babies, bus buses, dish dishes"
)
PASTS = (
    "go went, eat ate, see saw, run ran, write wrote, take took, come came, give gave, find found, buy bought, "
    "think thought, begin began, sing sang, drink drank, swim swam, know knew"
)
COLOURS = (
    "clear daytime sky blue, grass green, snow white, ripe banana yellow, coal black, ripe tomato red, "
    "carrot orange, lemon yellow, blood red, milk white, chocolate brown, leaf in spring green"
)
KINDS = (
    "apple fruit animal, dog animal fruit, rose flower animal, eagle bird fish, salmon fish bird, oak tree bird, "
    "hammer tool fruit, violin instrument fruit, carrot vegetable animal, bus vehicle flower, tiger animal tool, "
    "trumpet instrument animal, sparrow bird tool, tulip flower vehicle, cherry fruit tool, shark fish tree"
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
FACTS = (
    ("How many days are in a week?", "7|seven"),
    ("How many months are in a year?", "12|twelve"),
    ("How many hours are in a day?", "24|twenty four"),
    ("How many minutes are in an hour?", "60|sixty"),
    ("How many seconds are in a minute?", "60|sixty"),
    ("How many legs does a spider have?", "8|eight"),
    ("How many legs does a dog have?", "4|four"),
    ("How many legs does an insect have?", "6|six"),
    ("How many sides does a triangle have?", "3|three"),
    ("How many sides does a square have?", "4|four"),
    ("How many wheels does a bicycle have?", "2|two"),
    ("How many letters are in the English alphabet?", "26|twenty six"),
    ("How many years are in a century?", "100|hundred"),
    ("How many centimetres are in a metre?", "100|hundred"),
    ("How many grams are in a kilogram?", "1000|1,000|thousand"),
    ("Which planet do we live on?", "Earth"),
    ("Which planet is closest to the Sun?", "Mercury"),
    ("Which is the largest planet of the solar system?", "Jupiter"),
    ("Which star gives us light by day?", "Sun"),
    ("What does the Earth orbit?", "Sun"),
    ("Which gas do people need to breathe?", "oxygen"),
    ("What do bees make?", "honey"),
    ("What is frozen water called?", "ice"),
    ("At how many degrees Celsius does water boil?", "100|hundred"),
    ("Which animal says 'moo'?", "cow"),
    ("Which animal barks?", "dog"),
    ("Which organ pumps blood through the body?", "heart"),
    ("With which organ do we think?", "brain"),
    ("Who wrote the play 'Hamlet'?", "Shakespeare"),
    ("Who painted the 'Mona Lisa'?", "Leonardo|da Vinci"),
    ("Who developed the theory of relativity?", "Einstein"),
    ("Which ocean lies between Europe and America?", "Atlantic"),
    ("Which is the largest ocean?", "Pacific"),
    ("Which is the highest mountain of the world?", "Everest"),
    ("What is the chemical formula of water?", "H2O"),
    ("From which animal do we get wool?", "sheep"),
    ("Which season comes after winter?", "spring"),
    ("Which season comes after summer?", "autumn|fall"),
    ("Which meal do people eat in the morning?", "breakfast"),
    ("In which direction does the sun rise?", "east"),
)
PAIRS = (  # topic, question about the first word, data
    ("capitals", "What is the capital of {}?", CAPITALS),
    ("continents", "On which continent is {}?", CONTINENTS),
    ("languages", "Which language do most people speak in {}?", LANGUAGES),
    ("opposites", "What is the opposite of '{}'?", OPPOSITES),
    ("young", "What is a young {} called?", YOUNG),
    ("grammar", "What is the plural of '{}'?", PLURALS),
    ("grammar", "What is the past tense of '{}'?", PASTS),
    ("colours", "What colour is {}?", COLOURS),
)
SUMS = 40


@dataclass(frozen=True)
class Question:
    """A question of a topic; each of `answers` counts as right."""

    topic: str
    text: str
    answers: tuple[str, ...]

    def is_answered(self, said: str) -> bool:
        """Say whether one of the answers stands in what was said, as whole words."""
        heard = f" {normal(said)} "
        return any(f" {normal(answer)} " in heard for answer in self.answers)


def normal(text: str) -> str:
    """Keep the words of a text, in lower case; a comma within a number goes."""
    return " ".join(re.findall(r"\w+", re.sub(r"(?<=\d),(?=\d{3})", "", text.casefold())))


@cache
def questions() -> tuple[Question, ...]:
    """Give all questions, those alike in turns."""
    made = list(dict.fromkeys(_made()))
    random.Random(0).shuffle(made)
    return tuple(made)


def judging() -> tuple[Question, ...]:
    """Give the half that judges."""
    return questions()[::2]


def tuning() -> tuple[Question, ...]:
    """Give the other half: for choosing a learning rate, say."""
    return questions()[1::2]


def _made() -> Iterator[Question]:
    for topic, asks, pairs in PAIRS:
        for pair in pairs.split(", "):
            about, answers = pair.rsplit(" ", 1)
            yield Question(topic, asks.format(about), tuple(answers.split("|")))
    for kind in KINDS.split(", "):
        about, right, wrong = kind.split()
        first, second = (right, wrong) if len(about) % 2 else (wrong, right)
        yield Question("kinds", f"Is the {about} a kind of {first} or a kind of {second}?", (right,))
    for names, what in ((DAYS, "day of the week"), (MONTHS, "month")):
        for one, after in zip(names, (*names[1:], names[0]), strict=True):
            yield Question("calendar", f"Which {what} comes right after {one}?", (after,))
            yield Question("calendar", f"Which {what} comes right before {after}?", (one,))
    draw = random.Random(0)
    for _ in range(SUMS):
        a, b = draw.randint(2, 10), draw.randint(2, 10)
        yield Question("sums", f"What is {a} plus {b}?", (str(a + b), NUMBERS[a + b]))
        if a != b:  # the question would hold its answer
            yield Question("sums", f"What is {a + b} minus {b}?", (str(a), NUMBERS[a]))
    for text, answers in FACTS:
        yield Question("facts", text, tuple(answers.split("|")))


def read_own(path: Path) -> Sequence[Question]:
    """Read a user's own questions: a .jsonl file with `question` and `answer`, alternatives parted by `|`.

    Raises:
        SourceError: a row lacks one of them.
    """
    return list(_read_rows(path, (one.fields for one in read_examples(path))))


def _read_rows(path: Path, rows: Iterable[object]) -> Iterator[Question]:
    for number, row in enumerate(rows, 1):
        found = [str(row.get(key) or "").strip() if isinstance(row, dict) else "" for key in ("question", "answer")]
        if not all(found):
            raise SourceError(f"{path}: row {number}: give `question` and `answer`, alternatives parted by |")
        answers = tuple(found[1].split("|"))
        for answer in answers:
            if not normal(answer):  # it would stand in every reply
                raise SourceError(
                    f"{path}: row {number}: answer {found[1]!r}: {answer!r} holds no letter or digit to look for; "
                    "write it in words, or take it out"
                )
        yield Question("your questions", found[0], answers)
