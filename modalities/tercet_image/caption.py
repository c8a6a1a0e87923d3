"""Captions and questions whose truth is the scene itself."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

NUMBERS = ("no", "one", "two", "three")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def name_of(thing: Mapping[str, str]) -> str:
    """Name an object: `small red circle`, `blue box labelled "metformin"`."""
    if thing["label"]:
        return f'{thing["colour"]} {thing["shape"]} labelled "{thing["label"]}"'
    return f"{thing['size']} {thing['colour']} {thing['shape']}"


def with_article(name: str) -> str:
    """Put a or an before a name."""
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def caption(scene: Mapping[str, Any], draw: random.Random) -> str:
    """Describe a scene: `short` names the objects, `dense` the background, their number and places too."""
    names = [with_article(name_of(thing)) for thing in scene["objects"]]
    background = scene["background"]
    if scene["style"] == "short":
        listed = _listed(names)
        frame = draw.choice(["{} on a {} background", "{} on {}", "a picture of {} on {}", "{}, {} background"])
        first, second = frame.split("{}")[0], frame.split("{}")[1]
        text = f"{first}{listed}{second}{background}{frame.split('{}')[2]}"
        return text[0].upper() + text[1:] + "."
    count = len(names)
    opening = draw.choice(["The picture shows", "There is" if count == 1 else "There are", "On view:"])
    counted = f" {NUMBERS[count]} object{'s' if count > 1 else ''}: " if count > 1 else " "
    sentences = [f"{opening}{counted}{_listed(names)}."]
    if count > 1:
        first, second = name_of(scene["objects"][0]), name_of(scene["objects"][1])
        sentences.append(f"The {first} is {scene['relation']} the {second}.")
    sentences.append(draw.choice([f"The background is {background}.", f"Behind it all is {background}."]))
    return " ".join(sentences)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def questions(
    scene: Mapping[str, Any],
    count: int,
    colours: Sequence[str],
    shapes: Sequence[str],
    draw: random.Random,
    unnamed: Collection[tuple[str, str]] = (),
) -> list[dict[str, str]]:
    """Draw `count` questions with exact answers; yes and no come equally often.

    A pair of `unnamed` is never asked for where it is absent: it would be learned as one that is always denied.
    """
    things = scene["objects"]
    first = things[0]
    found = [
        ("count", "How many objects are there?", NUMBERS[len(things)]),
        ("background", "What colour is the background?", scene["background"]),
    ]
    for thing in things:
        same_shape = [other for other in things if other["shape"] == thing["shape"]]
        same_colour = [other for other in things if other["colour"] == thing["colour"]]
        if len(same_shape) == 1:
            found.append(("colour", f"What colour is the {thing['shape']}?", thing["colour"]))
        if len(same_colour) == 1:
            found.append(("shape", f"What is {thing['colour']}?", f"the {thing['shape']}"))
        if thing["label"]:
            found.append(("label", f"What is written on the {thing['shape']}?", thing["label"]))
    if len(things) > 1 and name_of(first) != name_of(things[1]):
        said = draw.choice([scene["relation"], OPPOSITE[scene["relation"]]])
        answer = "yes" if said == scene["relation"] else "no"
        found.append(("relation", f"Is the {name_of(first)} {said} the {name_of(things[1])}?", answer))
    present = {(thing["colour"], thing["shape"]) for thing in things}
    asked = draw.choice(sorted(present))
    if draw.random() < 0.5:
        pairs = [(colour, shape) for colour in colours for shape in shapes]
        absent = [pair for pair in pairs if pair not in present and pair not in unnamed]
        asked = draw.choice(absent) if absent else asked
    answer = "yes" if asked in present else "no"
    found.append(("presence", f"Is there {with_article(' '.join(asked))}?", answer))
    draw.shuffle(found)
    return [{"question": question, "answer": answer, "attribute": kind} for kind, question, answer in found[:count]]
