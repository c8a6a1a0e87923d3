"""Labels are what openai-whisper itself writes and reads, with the clips' times and without."""

import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import ApplyTimestampRules

from tercet.models.whisper_tokenizer import build
from tercet_audio.augment import RATE
from tercet_audio.labels import IGNORED, NO_TIMESTAMPS, START, TRANSCRIBE, Tokens
from tercet_audio.windows import Segment, Window

# openai-whisper leaves its vocabulary file open
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", r"ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"
)
SEGMENTS = (
    Segment(0.0, 2.3449, "Take metformin twice a day."),
    Segment(2.9371, 5.0, "'Tis the season, isn't it?"),
    Segment(5.151, 30.0, "3 mg of warfarin"),
)
SPOKEN = (
    "<|0.00|> Take metformin twice a day.<|2.34|><|2.94|> 'Tis the season, isn't it?<|5.00|>"
    "<|5.16|> 3 mg of warfarin<|30.00|>"
)
NAMES = {False: [START, NO_TIMESTAMPS], True: [START, "<|de|>", TRANSCRIBE, NO_TIMESTAMPS]}


@pytest.fixture(scope="module", params=[False, True], ids=["english", "multilingual"])
def both(request):
    """Our labels, and openai-whisper's tokeniser of the same model."""
    tokenizer = build(is_multilingual=request.param, num_languages=99)
    prefix = [tokenizer.convert_tokens_to_ids(name) for name in NAMES[request.param]]
    theirs = whisper.tokenizer.get_tokenizer(request.param, language="de", task="transcribe")
    return Tokens(tokenizer, prefix, tokenizer.eos_token_id), theirs


def window(*, has_timestamps):
    return Window(np.zeros(30 * RATE, np.float32), SEGMENTS, (), has_timestamps)


def test_labels_with_times_decode_to_the_clips_places_and_texts(both):
    ours, theirs = both
    forced, learned = ours(window(has_timestamps=True))
    assert tuple(forced) == theirs.sot_sequence
    assert learned[0] == theirs.timestamp_begin
    assert learned[-1] == theirs.eot
    assert theirs.decode_with_timestamps(learned[:-1]) == SPOKEN
    assert ours.tokenizer.decode(learned[:-1], decode_with_timestamps=True) == SPOKEN
    assert theirs.decode(learned[:-1]) == " " + window(has_timestamps=True).text


def test_openai_whispers_own_rules_allow_every_label_with_times(both):
    ours, theirs = both
    forced, learned = ours(window(has_timestamps=True))
    rules = ApplyTimestampRules(theirs, sample_begin=len(forced), max_initial_timestamp_index=50)
    for at, wanted in enumerate(learned):
        logits = torch.zeros(1, theirs.encoding.n_vocab)
        logits[0, wanted] = 20.0  # likelier than all 1,501 times together
        rules.apply(logits, torch.tensor([[*forced, *learned[:at]]]))
        assert logits[0, wanted] == 20.0, (at, wanted)


def test_labels_without_times_are_the_joined_text(both):
    ours, theirs = both
    forced, learned = ours(window(has_timestamps=False))
    assert tuple(forced) == theirs.sot_sequence_including_notimestamps
    assert learned == [*theirs.encode(" " + window(has_timestamps=False).text), theirs.eot]


def test_a_windows_tokens_are_those_of_its_clips(both):
    """What a window is filled by: the sum of the clips' counts is never below what the window has."""
    ours, _ = both
    counted = sum(ours.count(segment.text) for segment in SEGMENTS)
    assert len(ours(window(has_timestamps=True))[1]) == counted + 1
    assert len(ours(window(has_timestamps=False))[1]) == counted - 2 * len(SEGMENTS) + 1
    assert ours.count(" \n") == 0


def test_a_special_token_that_a_transcript_spells_out_is_text(both):
    ours, theirs = both
    words = ours.words("He wrote <|endoftext|> and <|0.50|> here.")
    assert max(words) < theirs.eot
    assert theirs.decode(words) == " He wrote <|endoftext|> and <|0.50|> here."


def test_times_carry_loss_and_the_forced_tokens_do_not_though_windows_differ(both):
    ours, theirs = both
    windows = [window(has_timestamps=True), window(has_timestamps=False)]
    inputs, labels = ours.batch(windows)
    for row, (forced, learned) in enumerate(map(ours, windows)):
        assert labels[row][labels[row] != IGNORED].tolist() == learned
        whole = [*forced, *learned]
        assert inputs[row, : len(whole) - 1].tolist() == whole[:-1]
        counts = labels[row] != IGNORED
        assert inputs[row, 1:][counts[:-1]].tolist() == learned[: int(counts[:-1].sum())] or row == 1
    assert (labels[0] >= theirs.timestamp_begin).sum() == 2 * len(SEGMENTS)
    assert (labels[1] >= theirs.timestamp_begin).sum() == 0
