"""General sentences: many, distinct, ordinary, and two families that never meet."""

import csv
import functools
import re
from pathlib import Path

import pytest

from tercet_audio.phrases import PHRASES
from tercet_audio.sentences import (
    FAMILIES,
    SLOT,
    SLOTS,
    calibration_sentences,
    general_sentence,
    num_sentences,
    templates,
)

PHARMACY = Path(__file__).parents[3] / "recipes" / "pharmacy"
DOMAIN = {"pharmacy", "pharmacist", "doctor", "tablet", "tablets", "dose", "medicine", "prescription", "milligrams"}


@functools.cache
def everything(family, seed=1):
    return [general_sentence(family, index, seed) for index in range(num_sentences(family))]


def words(text):
    return re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize(("family", "fewest", "least"), [("general", 40, 1000), ("replay", 30, 500)])
def test_no_sentence_comes_twice_before_the_family_is_exhausted(family, fewest, least):
    count = num_sentences(family)
    assert len(FAMILIES[family]) >= fewest
    assert count >= least
    said = everything(family)
    assert len(set(said)) == count
    assert general_sentence(family, count, 1) == said[0]


def test_the_families_share_neither_template_nor_sentence():
    assert not set(FAMILIES["general"]) & set(FAMILIES["replay"])
    assert not set(everything("general")) & set(everything("replay"))


@pytest.mark.parametrize("family", ["general", "replay"])
def test_templates_take_turns(family):
    count = len(templates(family))
    for seed in (1, 2):
        for start in (0, count, 5 * count):
            said = [general_sentence(family, start + index, seed) for index in range(count)]
            matched = {_template_of(family, sentence) for sentence in said}
            assert len(matched) == count


def _template_of(family, sentence):
    for text in FAMILIES[family]:
        pattern = re.escape(SLOT.sub("\0", text)).replace("\0", "(.+)").replace(r"\ ", " ")
        if re.fullmatch(pattern, sentence, re.IGNORECASE):
            return text
    raise AssertionError(sentence)


def test_another_seed_gives_other_sentences_and_the_same_seed_the_same():
    first = [general_sentence("general", index, 1) for index in range(50)]
    assert first == [general_sentence("general", index, 1) for index in range(50)]
    assert len(set(first) & {general_sentence("general", index, 2) for index in range(50)}) < 5


def test_sentences_are_whole_and_free_of_digits_terms_and_the_domain():
    with open(PHARMACY / "terms.csv", encoding="utf-8") as file:
        terms = {row["term"] for row in csv.DictReader(file)}
    for family in FAMILIES:
        for index in range(2000):
            sentence = general_sentence(family, index, 3)
            assert re.fullmatch(r"[A-Z][A-Za-z ,]+[.?]", sentence), sentence
            assert not set(words(sentence)) & (DOMAIN | terms)


@pytest.mark.parametrize("family", ["general", "replay"])
def test_no_article_stands_before_the_wrong_sound(family):
    wrong = re.compile(r"\ba [aeiou]\w*|\ban [^aeiou]\w*", re.IGNORECASE)
    assert not {found.group() for sentence in everything(family) if (found := wrong.search(sentence))}


def test_every_slot_holds_distinct_words():
    for name, choices in SLOTS.items():
        assert len(set(choices)) == len(choices) >= 7, name


def test_calibration_reads_the_same_sentences_each_time_and_none_that_measures():
    assert calibration_sentences(50) == calibration_sentences(60)[:50]
    assert not set(calibration_sentences(200)) & set(everything("general"))


def test_built_in_phrases_hold_the_slot_once_and_stand_at_start_middle_and_end():
    assert len(set(PHRASES)) == len(PHRASES) >= 40
    assert all(phrase.count("{") == phrase.count("{term}") == 1 for phrase in PHRASES)
    assert not set(words(" ".join(PHRASES))) & DOMAIN


def test_the_pharmacy_has_sixty_phrases_with_the_term_at_start_middle_and_end():
    lines = (PHARMACY / "phrases.txt").read_text(encoding="utf-8").splitlines()
    phrases = [line for line in lines if not line.startswith("#")]
    assert len(set(phrases)) == len(phrases) >= 60
    assert all(6 <= len(phrase.split()) <= 16 for phrase in phrases)
    starts = sum(phrase.startswith("{term}") for phrase in phrases)
    ends = sum(phrase.rstrip(".?").endswith("{term}") for phrase in phrases)
    assert starts >= 8
    assert ends >= 8
    assert len(phrases) - starts - ends >= 25
