"""The round trip: a recogniser that isn't being trained hears each clip, and must hear the words off the term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tercet.errors import ModelError
from tercet.modality import Needs, Resources
from tercet.models import ResolvedModel, resolve
from tercet.records import Candidate, Verdict
from tercet_audio.augment import RATE, Clip
from tercet_audio.calibration import Calibration, Figure
from tercet_audio.engines.base import REAL
from tercet_audio.gates.masked import Heard, compare
from tercet_audio.gates.signal import NotAClip, hear
from tercet_audio.metrics import normaliser
from tercet_audio.recipe import RoundTripGate
from tercet_audio.transcribe import WINDOW_SAMPLES, Transcriber

BATCH_SIZE = 8
ROBUSTNESS = "robustness"
MIN_TERM_RATIO, MAX_TERM_RATIO = 0.4, 2.5  # heard letters / the term's: spelling an unknown name changes them little
SHORT_TERM = 5  # letters; "MS" may be heard as "Emma's"


@dataclass(frozen=True, slots=True)
class Limit:
    """The word error rate that one voice's clips may have, and the label they bear."""

    wer: float
    label: str = ""


class RoundTrip:
    """Rejects clips of which a listener misses words, or in which nothing of the term's length is heard.

    Only the splits that the recipe names are judged, by default what is trained on; all others pass without a score. A
    test set chosen by a recogniser holds only what recognisers hear well, and would flatter every model.

    The listener must not be the model being trained, whose mistakes would then choose its own training data. A gate
    sees its own section alone, so `tercet train` checks that, where both models are known.

    Word errors are counted off the term (see `masked`); a clip of nothing but the term is judged by the length of what
    was heard. A voice whose calibration is above `max_wer` gets a limit of its own, and its clips the label
    `robustness`. A user's own recordings have no voice to calibrate, and get the widest limit.

    A batch always holds BATCH_SIZE clips, each in the slot that the plan gave it, with silence in the free ones: a
    transcript doesn't depend on which other clips are there.
    """

    needs: ClassVar[Needs] = Needs(memory_gib=1.5, model=True)
    batch_size: ClassVar[int] = BATCH_SIZE

    def __init__(self, section: RoundTripGate, resources: Resources) -> None:
        self.section = section
        self.normalise = normaliser(resources.language)
        self.judge = resolve(section.judge, "whisper-judge", resources.examples_root or ".")
        self.listener = load_listener(self.judge, resources.language)
        self.calibration = Calibration(self.judge, self.listener, section.calibration_sentences)
        self.may_calibrate = resources.language.split("-")[0] == "en"  # the sentences that voices read are English

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Judge the clips of the judged splits; let the others through."""
        verdicts = [Verdict("round_trip", passed=True)] * len(batch)
        judged = {at: one for at, one in enumerate(batch) if one.item.split in self.section.splits}
        clips: dict[int, Clip] = {}
        for at, candidate in judged.items():
            try:
                clips[at] = _audible(candidate)
            except NotAClip as error:
                verdicts[at] = Verdict("round_trip", passed=False, reason=str(error))
        for slots in _slotted({at: judged[at].slot for at in clips}):
            heard = self.listener([clips[slots[slot]] if slot in slots else SILENCE for slot in range(BATCH_SIZE)])
            for slot, at in slots.items():
                verdicts[at] = self._judge(judged[at], heard[slot])
        return verdicts

    def _judge(self, candidate: Candidate, transcript: str) -> Verdict:
        text, term = str(candidate.payload["text"]), str(candidate.payload.get("term") or "")
        heard = compare(text, term, transcript, self.normalise)
        limit = self._limit(candidate)
        if fault := term_fault(heard, len(term)):
            ratio = min(heard.term_ratios) if fault != "term too long" else max(heard.term_ratios)
            threshold = MIN_TERM_RATIO if fault != "term too long" else MAX_TERM_RATIO
            return Verdict("round_trip", False, ratio, threshold, fault, limit.label)
        passed = heard.wer <= limit.wer
        return Verdict("round_trip", passed, heard.wer, limit.wer, "" if passed else "words misheard", limit.label)

    def _limit(self, candidate: Candidate) -> Limit:
        payload = candidate.payload
        if payload.get("accent_mechanism") == REAL:
            return Limit(max(self.section.max_wer, self.section.max_calibrated_wer))
        if not self.may_calibrate:
            return Limit(self.section.max_wer)
        settings = candidate.parameters.get("engine_settings", {})
        return limit_of(self.calibration(str(payload["voice"]), settings), self.section)


SILENCE = np.zeros(RATE, np.float32)


def load_listener(judge: ResolvedModel, language: str) -> Transcriber:
    """Load the judge.

    Raises:
        ModelError: the model isn't a Whisper that transformers can load.
    """
    try:
        return Transcriber.load(judge.path, language, BATCH_SIZE)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"modalities.audio.gates.round_trip.judge: {judge.reference} in {judge.path} can't be loaded as Whisper: "
            f"{' '.join(str(error).split())[:200]}; name a Whisper model, or auto"
        ) from error


def limit_of(figure: Figure | None, section: RoundTripGate) -> Limit:
    """Give a voice's limit: the common one, or for a voice that the judge hears badly one from its own median."""
    if figure is None or figure.median_wer <= section.max_wer:
        return Limit(section.max_wer)
    return Limit(min(figure.median_wer + section.max_wer, section.max_calibrated_wer), ROBUSTNESS)


def term_fault(heard: Heard, term_letters: int) -> str:
    """Say what is wrong with the term's place, judging by the letters heard there alone."""
    if not heard.term_ratios:
        return ""
    low, high = min(heard.term_ratios), max(heard.term_ratios)
    if low == 0:
        return "term not heard"
    if low < MIN_TERM_RATIO:
        return "term too short"
    if high > MAX_TERM_RATIO * max(1, SHORT_TERM / max(1, term_letters)):
        return "term too long"
    return ""


def _audible(candidate: Candidate) -> Clip:
    clip = hear(candidate.payload)
    if len(clip) > WINDOW_SAMPLES:
        raise NotAClip("longer than Whisper hears")
    return clip


def _slotted(slot_of: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """Group places of a batch into passes, each slot -> place; the executor's own batches are one pass."""
    slots: dict[int, int] = {}
    for at, slot in slot_of.items():
        if slot % BATCH_SIZE in slots:
            yield slots
            slots = {}
        slots[slot % BATCH_SIZE] = at
    if slots:
        yield slots
