"""The plan of speech: keys that stay, an even grid, and nothing measured that is trained on."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import UsageError
from tercet.modality import Planning
from tercet.pipeline.planned import plan_recipe
from tercet.recipe import load_recipe
from tercet.sources import Example, Term, load_sources
from tercet_audio.cast import cast
from tercet_audio.plan import fill, hold_out, plan, said_in
from tercet_audio.recipe import AudioRecipe

REPOSITORY = Path(__file__).parents[3]
TERMS = tuple(Term(f"term{number}") for number in range(23))
PHRASES = tuple(f"Sentence {number} says {{term}} once." for number in range(11))
FEW = {"held_out": {"phrase_clips": 30, "engine_clips": 30, "term_clips": 30}}


def make_plan(terms=TERMS, phrases=PHRASES, seed=1, **section):
    return plan(AudioRecipe.model_validate({**FEW, **section}), Planning(seed, "en", terms, phrases))


def items_of(planned, split=""):
    items = (planned.item(index) for index in range(len(planned)))
    return [item for item in items if split in ("", item.split)]


def values(items, name):
    return {item.spec[name] for item in items}


@given(few=st.integers(1, 300), more=st.integers(0, 500), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_raising_the_quota_keeps_every_old_item(few, more, seed):
    old = [item.key for item in items_of(make_plan(seed=seed, clips=few))]
    new = [item.key for item in items_of(make_plan(seed=seed, clips=few + more))]
    assert set(old) <= set(new)
    assert old[:few] == new[:few]


def test_raising_a_measured_split_keeps_the_items_of_the_others():
    before = {item.key for item in items_of(make_plan(clips=50))}
    held_out = {"phrase_clips": 31, "engine_clips": 45, "term_clips": 90}
    after = {item.key for item in items_of(make_plan(clips=50, held_out=held_out, general={"replay_clips": 130}))}
    assert before < after
    assert len(after) == len(before) + 1 + 15 + 60 + 10


def test_no_two_items_share_a_key_even_where_every_pair_comes_several_times():
    items = items_of(make_plan(clips=2000))
    assert len({item.key for item in items}) == len(items)
    assert {item.spec["take"] for item in items if item.split == "train"} == set(range(13))  # 18 terms x 9 phrases


def test_every_term_comes_once_before_one_comes_twice_and_so_does_every_pair():
    train = items_of(make_plan(clips=18 * 9 * 2), "train")
    for first in range(0, len(train), 18):
        assert len(values(train[first : first + 18], "term")) == 18
    for first in (0, 18 * 9):
        pairs = {(item.spec["term"], item.spec["phrase"]) for item in train[first : first + 18 * 9]}
        assert len(pairs) == 18 * 9


def test_every_voice_and_pace_gets_its_share_of_any_stretch():
    train = items_of(make_plan(clips=640), "train")
    expected = {part.voice.id: part.share for part in cast(AudioRecipe(clips=1)).trained}
    for stretch in (train[:320], train[100:420], train[320:]):
        cells = Counter((item.spec["voice"], item.spec["pace"]) for item in stretch)
        assert len(cells) == 2 * 3 + 4 * 3
        for (voice, _), count in cells.items():
            assert abs(count - expected[voice] * 320) <= 3


def test_phrases_and_paces_do_not_go_together():
    train = items_of(make_plan(clips=18 * 9 * 30), "train")
    expected = len(train) / (9 * 3)
    for count in Counter((item.spec["phrase"], item.spec["pace"]) for item in train).values():
        assert abs(count - expected) < 0.25 * expected
    engines = Counter((item.spec["phrase"], item.spec["voice"].partition(":")[0]) for item in train)
    for (_, engine), count in engines.items():
        share = {"hibari": 0.7, "espeak": 0.3}[engine]
        assert abs(count - share * len(train) / 9) < 0.15 * len(train) / 9


def test_what_is_measured_is_held_out_of_training():
    planned = make_plan(clips=500)
    splits = {name: items_of(planned, name) for name in Counter(item.split for item in items_of(planned))}
    train = splits["train"]
    phrases, terms = values(train, "phrase"), values(train, "term")
    assert list(splits) == [
        "train", "held_out_phrases", "held_out_engine", "held_out_terms", "general", "replay",
    ]  # fmt: skip
    assert (len(phrases), len(terms)) == (9, 18)
    assert not values(splits["held_out_phrases"], "phrase") & phrases
    assert values(splits["held_out_phrases"], "term") <= terms
    assert not values(splits["held_out_engine"], "voice") & values(train, "voice")
    assert values(splits["held_out_engine"], "term") <= terms
    assert not values(splits["held_out_terms"], "term") & terms
    assert not values(splits["held_out_terms"], "phrase") & phrases
    assert values(splits["general"], "voice") == {"pico:en-GB"}
    assert values(splits["general"], "term") == values(splits["replay"], "term") == {""}
    assert values(splits["replay"], "voice") == values(train, "voice")
    assert not values(splits["general"], "text") & values(splits["replay"], "text")


def test_another_term_moves_no_more_than_one_of_the_old_ones():
    names = [term.text for term in TERMS]
    for number in range(30):
        before, after = hold_out(names, 0.2, 7), hold_out([*names, f"new{number}"], 0.2, 7)
        assert len(before - after) <= 1
        assert len(after - before) <= 1


def test_a_term_is_written_as_it_is_spelled_and_spoken_as_the_list_says():
    planned = make_plan(terms=(Term("SQL", "sequel"), Term("nginx", "engine x")), clips=4)
    for item in items_of(planned, "train"):
        said = {"SQL": "sequel", "nginx": "engine x"}[item.spec["term"]]
        assert item.spec["term"] in item.spec["text"]
        assert said in item.spec["spoken"]
        assert said not in item.spec["text"]


def test_a_term_at_the_start_gets_a_capital_letter_unless_it_has_a_spelling_of_its_own():
    assert fill("{term} is late.", "aspirin") == "Aspirin is late."
    assert fill("{term} is late.", "mRNA vaccine") == "mRNA vaccine is late."
    assert fill("Is {term} late?", "aspirin") == "Is aspirin late?"


def test_without_phrases_the_built_in_ones_are_spoken():
    assert len(values(items_of(make_plan(phrases=(), clips=900), "train"), "phrase")) == 34


def test_the_last_of_a_hundred_million_clips_is_planned_at_once():
    started = time.perf_counter()
    planned = make_plan(clips=100_000_000)
    assert planned.item(99_999_999).split == "train"
    assert planned.item(len(planned) - 1).split == "replay"
    assert time.perf_counter() - started < 1
    with pytest.raises(IndexError):
        planned.item(len(planned))


def test_espeak_speaks_four_accents_once_each_unless_voices_are_named():
    voices = {part.voice for part in cast(AudioRecipe(clips=1)).trained if part.voice.engine == "espeak"}
    assert len({voice.accent for voice in voices}) == len(voices) == 4
    named = AudioRecipe.model_validate({"clips": 1, "engines": {"espeak": {"voices": ["en-us"]}}})
    assert {part.voice.id for part in cast(named).trained} == {"espeak:en-us"}


def test_without_a_held_out_engine_an_unused_voice_reads_the_general_sentences():
    planned = make_plan(clips=20, held_out={"engine": None, "phrase_clips": 5, "term_clips": 5})
    splits = Counter(item.split for item in items_of(planned))
    assert "held_out_engine" not in splits
    reader = values(items_of(planned, "general"), "voice")
    assert len(reader) == 1
    assert not reader & values(items_of(planned, "train"), "voice")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"engines": {"siri": {}}}, "speech engine 'siri' does not exist; there are: hibari, pico"),
        ({"engines": {"hibari": {"voices": ["harp"]}}}, "'hibari' has no voice 'harp'; it has: heart, heart-gb"),
        ({"held_out": {"engine": "nobody"}}, "speech engine 'nobody' does not exist"),
        ({"paces": [1.0, 1.7]}, "paces: 1.7 is beyond speech engine 'hibari', which speaks at 0.7 to 1.5"),
        ({"general": {"voice": "hibari:heart"}}, "'hibari:heart' is trained on; name a voice that isn't"),
        ({"general": {"voice": "pico:en-FR"}}, "'pico' has no voice 'en-FR'; it has: en-US, en-GB"),
        ({"general": {"voice": "pico"}}, "voice 'pico' has no engine; write it as engine:name"),
        ({"engines": {"hibari": {}}, "held_out": {"engine": None}}, "every voice of hibari is trained on"),
    ],
)
def test_a_voice_or_pace_that_is_not_there_is_named_before_anything_runs(section, said):
    with pytest.raises(UsageError) as caught:
        make_plan(clips=5, **section)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("terms", "phrases", "said"),
    [
        ((), PHRASES, "clips: 5 clips, but there is no term to say; add sources.terms"),
        (TERMS[:1], PHRASES, "term_clips: 30 clips, but one of the terms can't be held out of so few"),
        (TERMS, PHRASES[:1], "phrase_clips: 30 clips, but one of the phrases can't be held out of so few"),
    ],
)
def test_too_little_to_say_is_an_error_that_says_what_to_add(terms, phrases, said):
    with pytest.raises(UsageError) as caught:
        make_plan(terms, phrases, clips=5)
    assert said in str(caught.value)


def test_nothing_is_held_out_where_the_recipe_says_so():
    planned = make_plan(TERMS[:1], PHRASES[:1], clips=5, held_out={"terms": 0, "phrases": 0, "engine": None})
    assert set(Counter(item.split for item in items_of(planned))) == {"train", "general", "replay"}


def examples(folder, count):
    return tuple(Example({"text": f"Text {n}."}, f"{folder}/clips/{n}.wav", f"{n:032x}") for n in range(count))


def plan_real(folder, count, clips, fraction=0.2):
    section = AudioRecipe.model_validate({**FEW, "clips": clips})
    planning = Planning(1, "en", TERMS, PHRASES, examples=examples(folder, count), real_fraction=fraction, root=folder)
    return items_of(plan(section, planning))


@pytest.mark.parametrize(("count", "clips", "kept"), [(100, 80, 20), (5, 80, 5), (100, 0, 100)])
def test_recordings_are_at_most_their_fraction_of_the_train_split(count, clips, kept):
    real = [item for item in plan_real("/a", count, clips) if item.generator == "examples"]
    assert len({item.key for item in real}) == len(real) == kept
    assert {item.split for item in real} == {"train"}


def test_a_recipe_folder_that_moves_keeps_the_keys_of_its_recordings():
    assert [item.key for item in plan_real("/a", 9, 0)] == [item.key for item in plan_real("/else/where", 9, 0)]


def test_the_main_job_is_spoken_for_the_most_part_by_hibari_and_pico():
    recipe = load_recipe(REPOSITORY / "recipes" / "pharmacy.yaml")
    planned = plan_recipe(recipe, load_sources(recipe), Path("nowhere"))
    items = items_of(next(one.plan for one in planned if one.name == "audio"))
    engines = Counter(item.spec["voice"].partition(":")[0] for item in items)
    assert (engines["hibari"] + engines["pico"]) / len(items) >= 0.7
    splits = Counter(item.split for item in items)
    assert splits["train"] >= 300
    train = [item for item in items if item.split == "train"]
    assert "pico" not in Counter(item.spec["voice"].partition(":")[0] for item in train)
    assert len(values(train, "term")) == 64  # 80% of 80
    assert len(values(items, "phrase") - values(train, "phrase")) > 14  # a fifth of the phrases, and general sentences


def test_no_held_out_term_is_said_inside_another_term_a_phrase_or_a_recording():
    names = [f"drug{number}" for number in range(12)]
    terms = tuple(Term(text) for name in names for text in (name, f"{name.upper()}-retard"))
    phrases = (*PHRASES, "Never {term} with Drug3.", "Is {term} better than drug3?")
    recording = Example({"text": "Two tablets of drug5-retard, please."})
    for seed in range(20):
        section = AudioRecipe.model_validate({"clips": 40, "held_out": {"terms": 0.5, "engine_clips": 0}})
        planned = plan(section, Planning(seed, "en", terms, phrases, examples=(recording,)))
        assert planned.held_out_terms
        said = " | ".join(item.spec["text"].lower() for item in items_of(planned, "train") if "text" in item.spec)
        said += " | two tablets of drug5-retard, please."
        for term in planned.held_out_terms:
            assert not re.search(rf"\b{re.escape(term.lower())}\b", said), term


def test_terms_are_found_word_for_word():
    terms = ["iron", "Vitamin B 12", "co-codamol", "---"]
    assert said_in(terms, ["Environmental iron.", "vitamin b-12!"]) == {"iron", "Vitamin B 12"}
    assert said_in(terms, ["Environmental", "vitamin B", "--- co codamol"]) == {"co-codamol"}
    assert said_in([], ["iron"]) == said_in(terms, []) == frozenset()


def test_english_sentences_are_not_read_in_another_language():
    def plan_in(language, phrases=(), **section):
        planning = Planning(1, language, TERMS, phrases)
        return plan(AudioRecipe.model_validate({**FEW, **section}), planning)

    silent = {"clips": 0, "replay_clips": 0}
    with pytest.raises(UsageError, match=r"language 'de': the built-in phrases are English; add sources.phrases"):
        plan_in("de", general=silent)
    with pytest.raises(UsageError, match=r"the general sentences are English; set modalities.audio.general"):
        plan_in("de-AT", phrases=("Ich nehme {term}.", "Wo ist {term}?"))
    assert len(plan_in("de", phrases=PHRASES, general=silent)) > 0
    assert len(plan_in("en-GB")) > 0
