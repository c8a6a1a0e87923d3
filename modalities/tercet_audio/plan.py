"""The plan: the user's terms in carrier phrases, spread over voices and paces; each item is computed from its index.

Within one split every (term, phrase) pair comes once before a pair comes twice, every term once before a term comes
twice, and any run of items covers the voices and paces by their shares. What is measured is disjoint from what is
trained on: by phrase, by speech engine, or by term. Raising a quota only adds items.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tercet.errors import UsageError
from tercet.modality import Planning
from tercet.permutation import mix, permute, spread
from tercet.randomness import canonical_json, digest
from tercet.records import Item
from tercet.sources import SLOT, Example, Term
from tercet_audio.cast import Part, cast
from tercet_audio.phrases import PHRASES
from tercet_audio.recipe import AudioRecipe
from tercet_audio.sentences import Family, general_sentence, num_sentences

TRAIN, REPLAY, GENERAL = "train", "replay", "general"
HELD_OUT_PHRASES, HELD_OUT_ENGINE, HELD_OUT_TERMS = "held_out_phrases", "held_out_engine", "held_out_terms"


def seed_of(planning_seed: int, *words: str) -> int:
    """Derive the seed of one choice of the plan."""
    return int(digest(str(planning_seed), "audio", *words)[:15], 16)


class Parts:
    """Voices and paces, each with its share of [0, 1): an even spread of points visits them by their shares."""

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self.parts, self.seed = parts, seed

    def at(self, index: int) -> Part:
        """Choose who speaks item `index`."""
        place = spread(index, self.seed)
        for part in self.parts:
            if place < part.share:
                return part
            place -= part.share
        return self.parts[-1]  # the shares' sum may be a rounding below 1


@dataclass(frozen=True)
class Carried:
    """A split of terms in carrier phrases: an endless sequence."""

    split: str
    terms: Sequence[Term]
    phrases: Sequence[str]
    parts: Parts
    seed: int

    def item(self, index: int, position: int) -> Item:
        """Plan clip `index` of the split, at `position` of the whole plan."""
        turn, place = divmod(index, len(self.terms))
        take, round_of_phrases = divmod(turn, len(self.phrases))
        rank = permute(place, len(self.terms), mix(self.seed + turn))
        # each round shifts the phrases by one against the terms: a Latin square, so no pair comes twice in a take
        shifted = (rank + round_of_phrases) % len(self.phrases)
        phrase = self.phrases[permute(shifted, len(self.phrases), mix(self.seed - 1))]
        term = self.terms[rank]
        spec = {
            "text": fill(phrase, term.text),
            "spoken": fill(phrase, term.spoken or term.text),
            "term": term.text,
            "phrase": phrase,
            "take": take,
        }
        return _speech_item(self.split, spec, self.parts.at(index), position)


@dataclass(frozen=True)
class Ordinary:
    """A split of general sentences: an endless sequence."""

    split: str
    family: Family
    parts: Parts
    seed: int

    def item(self, index: int, position: int) -> Item:
        """Plan clip `index` of the split, at `position` of the whole plan."""
        text = general_sentence(self.family, index, self.seed)
        take = index // num_sentences(self.family)
        spec = {"text": text, "spoken": text, "term": "", "phrase": text, "take": take}
        return _speech_item(self.split, spec, self.parts.at(index), position)


@dataclass(frozen=True)
class Recordings:
    """The user's own clips, in an order of their own; `root` is what their paths are relative to."""

    examples: Sequence[Example]
    root: str
    seed: int

    def item(self, index: int, position: int) -> Item:
        """Plan recording `index`, at `position` of the whole plan."""
        example = self.examples[permute(index, len(self.examples), self.seed)]
        # relative: a recipe's folder may move, and its records keep their names
        file = os.path.relpath(example.file, self.root or None) if example.file else ""
        spec = {"file": file, "digest": example.file_digest, "row": dict(example.fields)}
        cell = {"voice": "real", "accent": "real", "pace": "real"}
        return Item("audio", "examples", TRAIN, spec, position, cell)


def fill(phrase: str, term: str) -> str:
    """Put a term into a phrase; at its start an all-lowercase word gets a capital letter."""
    first = term.partition(" ")[0] if phrase.startswith(SLOT) else ""
    if first and first == first.lower():
        term = term[0].upper() + term[1:]
    return phrase.replace(SLOT, term)


def hold_out(texts: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose the held-out share by digest, so that another entry moves few; at least one, where there are two."""
    if not share or len(texts) < 2:
        return frozenset()
    count = min(len(texts) - 1, max(1, round(share * len(texts))))
    return frozenset(sorted(texts, key=lambda text: digest(str(seed), text))[:count])


def said_in(terms: Iterable[str], texts: Iterable[str]) -> frozenset[str]:
    """Name the terms that stand in one of the texts, word for word, whatever their case and punctuation."""
    known: dict[tuple[str, ...], set[str]] = {}
    for term in terms:
        known.setdefault(_words(term), set()).add(term)
    lengths = {len(words) for words in known} - {0}
    found: set[str] = set()
    for words in map(_words, texts):
        for length in lengths:
            for at in range(len(words) - length + 1):
                found |= known.get(words[at : at + length], set())
    return frozenset(found)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _speech_item(split: str, spec: Mapping[str, Any], part: Part, position: int) -> Item:
    voice = part.voice
    cell = {"voice": voice.id, "accent": voice.accent, "pace": f"{part.pace:g}"}
    return Item("audio", "speech", split, {**spec, "voice": voice.id, "pace": part.pace}, position, cell)


Stream = Carried | Ordinary | Recordings


class AudioPlan:
    """The whole plan of a recipe's audio section.

    Raises:
        UsageError: an absent engine or voice, a pace beyond an engine, or too little to hold anything out.
    """

    def __init__(self, section: AudioRecipe, planning: Planning) -> None:
        self.section, self.planning = section, planning
        _check_language(section, planning)
        self.cast = cast(section)
        self.terms: Sequence[Term] = tuple(planning.terms)
        self.phrases = tuple(planning.phrases) or PHRASES
        self.streams: list[tuple[Stream, int]] = [*self._carried(), *self._ordinary(), *self._recordings()]
        self.num_items = sum(count for _, count in self.streams)

    def __len__(self) -> int:
        """Count the items."""
        return self.num_items

    def item(self, index: int) -> Item:
        """Give the item at `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a plan of {len(self)}")
        offset = index
        for stream, count in self.streams:
            if offset < count:
                return stream.item(offset, index)
            offset -= count
        raise AssertionError("the streams' counts do not sum to the plan's length")

    @cached_property
    def held_out_terms(self) -> frozenset[str]:
        """Name the terms that no training clip says: not in a phrase or a recording either, nor inside another term."""
        terms = [term.text for term in self.terms]
        phrases = [phrase.replace(SLOT, "") for phrase in self.phrases if phrase not in self.held_out_phrases]
        recorded = [str(example.fields.get("text") or "") for example in self.planning.examples]
        said = said_in(terms, [*phrases, *recorded])
        unsaid = [term for term in terms if term not in said]
        held_out = hold_out(unsaid, self.section.held_out.terms, seed_of(self.planning.seed, "terms"))
        return held_out - said_in(held_out, [term for term in terms if term not in held_out])

    @cached_property
    def held_out_phrases(self) -> frozenset[str]:
        """Name the phrases that no training clip uses."""
        return hold_out(self.phrases, self.section.held_out.phrases, seed_of(self.planning.seed, "phrases"))

    def _carried(self) -> Iterable[tuple[Stream, int]]:
        if not self.terms:
            if self.section.clips:
                raise UsageError(
                    f"modalities.audio.clips: {self.section.clips} clips, but there is no term to say; "
                    "add sources.terms, or set clips: 0"
                )
            return
        trained = [term for term in self.terms if term.text not in self.held_out_terms]
        unheard = [term for term in self.terms if term.text in self.held_out_terms]
        usual = [phrase for phrase in self.phrases if phrase not in self.held_out_phrases]
        # where no phrase is held out, what else is held out is said in the usual ones
        fresh = [phrase for phrase in self.phrases if phrase in self.held_out_phrases]
        asked = self.section.held_out
        yield self._terms_in(TRAIN, trained, usual, self.cast.trained), self.section.clips
        if asked.phrases and asked.phrase_clips:
            _need(fresh, "phrases", "phrase_clips", asked.phrase_clips)
            yield self._terms_in(HELD_OUT_PHRASES, trained, fresh, self.cast.trained), asked.phrase_clips
        if self.cast.held_out:
            yield self._terms_in(HELD_OUT_ENGINE, trained, fresh or usual, self.cast.held_out), asked.engine_clips
        if asked.terms and asked.term_clips:
            _need(unheard, "terms", "term_clips", asked.term_clips)
            yield self._terms_in(HELD_OUT_TERMS, unheard, fresh or usual, self.cast.trained), asked.term_clips

    def _terms_in(self, split: str, terms: Sequence[Term], phrases: Sequence[str], parts: Sequence[Part]) -> Carried:
        return Carried(split, terms, phrases, self._parts(split, parts), seed_of(self.planning.seed, split))

    def _ordinary(self) -> Iterable[tuple[Stream, int]]:
        asked = self.section.general
        wanted: list[tuple[str, Family, Sequence[Part], int]] = [
            (GENERAL, "general", self.cast.general, asked.clips),
            (REPLAY, "replay", self.cast.trained, asked.replay_clips),
        ]
        for split, family, parts, count in wanted:
            yield Ordinary(split, family, self._parts(split, parts), seed_of(self.planning.seed, split)), count

    def _parts(self, split: str, parts: Sequence[Part]) -> Parts:
        return Parts(parts, seed_of(self.planning.seed, split, "voices"))

    def _recordings(self) -> Iterable[tuple[Stream, int]]:
        """Take as many recordings as the train split bears; without synthetic clips, all of them."""
        distinct = {(one.file_digest, canonical_json(dict(one.fields))): one for one in self.planning.examples}
        fraction, count = self.planning.real_fraction, len(distinct)
        if self.section.clips:
            count = min(count, round(self.section.clips * fraction / (1 - fraction)))
        seed = seed_of(self.planning.seed, "recordings")
        yield Recordings(tuple(distinct.values()), self.planning.root, seed), count


def _check_language(section: AudioRecipe, planning: Planning) -> None:
    """Refuse to let English sentences be read in another language."""
    if planning.language.split("-")[0] == "en":
        return
    if (section.clips or section.held_out.term_clips) and planning.terms and not planning.phrases:
        raise UsageError(
            f"language {planning.language!r}: the built-in phrases are English; add sources.phrases in that language"
        )
    if section.general.clips or section.general.replay_clips:
        raise UsageError(
            f"language {planning.language!r}: the general sentences are English; set modalities.audio.general: "
            "{clips: 0, replay_clips: 0} and name your own speech in evaluate.general"
        )


def _need(held_out: Sequence[object], what: str, quota: str, count: int) -> None:
    if not held_out:
        raise UsageError(
            f"modalities.audio.held_out.{quota}: {count} clips, but one of the {what} can't be held out of so few; "
            f"add {what}, or set {quota}: 0"
        )


def plan(section: AudioRecipe, planning: Planning) -> AudioPlan:
    """Plan the clips of one recipe."""
    return AudioPlan(section, planning)
