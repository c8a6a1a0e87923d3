"""Gates on the samples: how long, how silent, whether clipped, and whether they are as long as their text asks for.

Whatever a payload holds, the answer is a verdict: bytes that are no sound are rejected as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from tercet.modality import Needs, Resources
from tercet.records import Candidate, Columns, Verdict
from tercet_audio.augment import RATE, Clip
from tercet_audio.payload import decode_clip
from tercet_audio.recipe import CharacterRateGate, ClippingGate, DurationGate, SilenceGate

RUN = 3  # samples in a row at the peak; the top of a sine of 100 Hz holds three, once a period at most

Section = TypeVar("Section")


class NotAClip(Exception):
    """A payload that can't be heard; its text is the reason of the rejection."""


def hear(payload: Columns) -> Clip:
    """Decode a payload's sound.

    Raises:
        NotAClip: no bytes, no sound file, another shape than a shard of ours holds, no samples, or not finite.
    """
    data = payload.get("audio")
    if not isinstance(data, bytes) or not data:
        raise NotAClip("no sound")
    try:
        clip = decode_clip(data)
    except Exception as error:  # whatever a decoder raises on hostile bytes
        raise NotAClip("undecodable") from error
    if not len(clip):
        raise NotAClip("no sound")
    if not np.isfinite(clip).all():
        raise NotAClip("not finite")
    return clip


class _ClipGate(Generic[Section]):
    """What the four share: decode, judge, and reject what can't be decoded."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs(memory_gib=0.2)
    batch_size: ClassVar[int] = 64

    def __init__(self, section: Section, resources: Resources) -> None:
        del resources
        self.section = section

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Judge each clip."""
        return [self._judge(candidate.payload) for candidate in batch]

    def _judge(self, payload: Columns) -> Verdict:
        try:
            return self.judge(hear(payload), payload)
        except NotAClip as error:
            return Verdict(self.name, passed=False, reason=str(error))

    def judge(self, clip: Clip, payload: Columns) -> Verdict:
        """Judge one clip."""
        raise NotImplementedError

    def rejected(self, reason: str, score: float, threshold: float) -> Verdict:
        """Say what was measured against what limit."""
        return Verdict(self.name, passed=False, score=float(score), threshold=threshold, reason=reason)

    def passed(self, score: float, threshold: float) -> Verdict:
        """Let a clip through, with the measure nearest to the gate's purpose."""
        return Verdict(self.name, passed=True, score=float(score), threshold=threshold)


class Duration(_ClipGate[DurationGate]):
    """Rejects clips that are too short to hold a sentence, or longer than the recipe allows."""

    name = "duration"

    def judge(self, clip: Clip, payload: Columns) -> Verdict:
        """Judge the seconds."""
        del payload
        seconds = len(clip) / RATE
        if seconds < self.section.min_seconds:
            return self.rejected("too short", seconds, self.section.min_seconds)
        if seconds > self.section.max_seconds:
            return self.rejected("too long", seconds, self.section.max_seconds)
        return self.passed(seconds, self.section.max_seconds)


class Silence(_ClipGate[SilenceGate]):
    """Rejects clips that are quiet as a whole, silent for long at an end or in between, or mostly silent.

    A batch is measured at once by `tercet_kernels.audio_stats`: frames of 20 ms, a pitch period of the deepest voice
    and short against any pause, are silent where they lie `below_db` or more under the clip's loudest.
    """

    name = "silence"
    needs = Needs(memory_gib=0.5)  # torch

    def __call__(self, batch: Sequence[Candidate]) -> Sequence[Verdict]:
        """Judge the loudness of frames against the loudest, of all clips that can be heard."""
        heard: list[Clip | NotAClip] = []
        for candidate in batch:
            try:
                heard.append(hear(candidate.payload))
            except NotAClip as error:
                heard.append(error)
        measured = measure([clip for clip in heard if not isinstance(clip, NotAClip)], self.section.below_db)
        return [
            Verdict(self.name, passed=False, reason=str(clip))
            if isinstance(clip, NotAClip)
            else self._judge_measured(next(measured))
            for clip in heard
        ]

    def _judge_measured(self, found: Measured) -> Verdict:
        section = self.section
        if found.peak < section.min_peak:
            return self.rejected("too quiet", found.peak, section.min_peak)
        for reason, seconds, limit in (
            ("leading silence", found.leading, section.max_edge_seconds),
            ("trailing silence", found.trailing, section.max_edge_seconds),
            ("long pause", found.longest_pause, section.max_gap_seconds),
        ):
            if seconds > limit:
                return self.rejected(reason, seconds, limit)
        if found.silence_ratio > section.max_share:
            return self.rejected("too much silence", found.silence_ratio, section.max_share)
        return self.passed(found.silence_ratio, section.max_share)


class Clipping(_ClipGate[ClippingGate]):
    """Rejects clips whose peaks are cut flat, at whatever level: a finished clip is scaled, so full scale says nothing.

    Of 975 clips of our 15 default voices none has more than 0.13 of its samples within half of its peak (Pico, which
    saturates by itself). Amplified 8 times and cut, half of each engine's have over 0.25. Counting samples at the very
    peak finds no clipped clip of an engine at 22 or 24 kHz: resampling rounds the corners.
    """

    name = "clipping"

    def judge(self, clip: Clip, payload: Columns) -> Verdict:
        """Judge the share of samples in runs at the clip's own peak."""
        del payload
        share = flat_share(clip, self.section.at_level)
        if share > self.section.max_share:
            return self.rejected("clipped", share, self.section.max_share)
        return self.passed(share, self.section.max_share)


class CharacterRate(_ClipGate[CharacterRateGate]):
    """Rejects clips that are too long or too short for their text at the pace that was asked for.

    Characters per second, divided by the asked pace: without that division the fast and the slow clips would be
    rejected as broken, and the training set would lose its paces. The 15 default voices speak 13 to 21 a second at
    paces of 0.7 to 1.5.
    """

    name = "character_rate"

    def judge(self, clip: Clip, payload: Columns) -> Verdict:
        """Judge the characters of what was spoken per second."""
        count = written_characters(str(payload.get("spoken") or payload.get("text") or ""))
        pace = payload.get("pace")
        pace = 1.0 if pace is None else float(pace)
        if not count:
            return Verdict(self.name, passed=False, reason="no text")
        if not (math.isfinite(pace) and pace > 0):
            return Verdict(self.name, passed=False, reason="no pace")
        rate = count * RATE / len(clip) / pace
        if rate > self.section.max_rate:
            return self.rejected("too short for its text", rate, self.section.max_rate)
        if rate < self.section.min_rate:
            return self.rejected("too long for its text", rate, self.section.min_rate)
        return self.passed(rate, self.section.max_rate)


def written_characters(text: str) -> int:
    """Count the characters of a text with single spaces; a digit counts as the four letters of its name on average."""
    plain = " ".join(text.split())
    return len(plain) + 3 * sum(char.isdigit() for char in plain)


class Measured(NamedTuple):
    """What the silence gate asks of a clip; silences in seconds."""

    peak: float
    leading: float
    trailing: float
    longest_pause: float
    silence_ratio: float


def measure(clips: Sequence[Clip], below_db: float) -> Iterator[Measured]:
    """Measure clips at the working rate, in order; each sample is read once."""
    import torch

    from tercet_kernels.audio_stats import audio_stats

    if not clips:
        return
    offsets = torch.tensor([0, *np.cumsum([len(clip) for clip in clips])])
    stats = audio_stats(torch.from_numpy(np.concatenate(clips)), offsets, RATE, below_db=below_db)
    columns = (
        stats.peak,
        stats.leading_silence_seconds,
        stats.trailing_silence_seconds,
        stats.longest_pause_seconds,
        stats.silence_ratio,
    )
    yield from map(Measured._make, zip(*(column.tolist() for column in columns), strict=True))


def flat_share(clip: Clip, at_level: float) -> float:
    """Give the share of samples in runs of at least RUN within `at_level` of the clip's peak."""
    peak = float(np.abs(clip).max())
    if not peak:
        return 0.0
    high: Any = np.concatenate([[False], np.abs(clip) >= at_level * peak, [False]])
    change = np.flatnonzero(high[1:] != high[:-1])
    lengths = change[1::2] - change[::2]
    return float(lengths[lengths >= RUN].sum() / len(clip))
