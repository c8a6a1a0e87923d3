"""How well a judge hears a voice: word errors on ordinary sentences, measured once per voice and judge.

`calibration.json` holds the figures of the voices that recipes use by default, as `tercet audio calibrate` wrote it.
A voice that isn't in it is measured when a gate first needs it, and kept in tercet's cache.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tercet.models import ResolvedModel
from tercet.models.cache import build_once
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.clip import finish
from tercet_audio.engines import find_voice, ready_engine
from tercet_audio.engines.base import Settings
from tercet_audio.gates.masked import compare
from tercet_audio.metrics import normaliser
from tercet_audio.sentences import calibration_sentences
from tercet_audio.transcribe import Clip

TABLE = "calibration.json"
SEED = 1  # of engines that draw noise
ROUNDED = 4  # decimals of a committed figure

Listener = Callable[[Sequence[Clip]], list[str]]  # a Transcriber
Key = tuple[str, str, str]  # (digest of what speaks, voice, digest of the judge)


@dataclass(frozen=True, slots=True)
class Figure:
    """One voice's word error rate by sentence, as one judge heard it at pace 1.0."""

    voice: str
    speaker: str  # reference of what speaks
    speaker_digest: str
    judge: str
    judge_digest: str
    num_sentences: int
    median_wer: float
    mean_wer: float

    @property
    def key(self) -> Key:
        """Name what was measured: another version of the engine or judge is another figure."""
        return self.speaker_digest, self.voice, self.judge_digest


class Calibration:
    """Gives figures of voices for one judge: from the table, else the cache, else by measuring.

    Args:
        judge: the listener's model.
        listener: the same, loaded.
        num_sentences: how many a voice without a figure reads; with 0 it isn't measured and has none.
    """

    def __init__(self, judge: ResolvedModel, listener: Listener, num_sentences: int) -> None:
        self.judge, self.listener, self.num_sentences = judge, listener, num_sentences
        self._known: dict[str, Figure | None] = {}

    def __call__(self, voice: str, settings: Settings | None = None) -> Figure | None:
        """Return the figure of the voice `engine:name`.

        Raises:
            UsageError: the engine or voice isn't on this machine, so it can't be measured.
        """
        if voice not in self._known:
            self._known[voice] = self._find(voice, settings or {})
        return self._known[voice]

    def _find(self, voice: str, settings: Settings) -> Figure | None:
        use = ready_engine(voice.partition(":")[0], settings).use()
        key = (use.digest, voice, self.judge.digest)
        if (known := table().get(key)) is not None:
            return known
        if not self.num_sentences:
            return None

        def build(folder: Path) -> None:
            figure = measure(voice, settings, self.judge, self.listener, self.num_sentences)
            (folder / TABLE).write_text(json.dumps(asdict(figure), indent=1), encoding="utf-8")

        folder = build_once(f"calibration-{digest(*key, str(self.num_sentences))}", build)
        return Figure(**json.loads((folder / TABLE).read_text(encoding="utf-8")))


def measure(
    voice: str,
    settings: Settings,
    judge: ResolvedModel,
    listener: Listener,
    num_sentences: int,
) -> Figure:
    """Let a voice read ordinary sentences at pace 1.0, and count the words that the judge gets wrong."""
    engine = ready_engine(voice.partition(":")[0], settings)
    name = find_voice(voice, {engine.name: settings}).name
    sentences = calibration_sentences(num_sentences)
    normalise = normaliser("en")
    clips: list[Clip] = []
    for sentence in sentences:
        said = engine.speak(sentence, name, 1.0, SEED)
        clips.append(finish(said.samples, said.rate))
    heard = listener(clips)
    rates = [compare(text, "", words, normalise).wer for text, words in zip(sentences, heard, strict=True)]
    return figure_of(voice, engine.use(), judge, rates)


def figure_of(voice: str, use: ModelUse, judge: ResolvedModel, rates: list[float]) -> Figure:
    """Summarise a voice's word error rates by sentence."""
    return Figure(
        voice,
        use.reference,
        use.digest,
        judge.reference,
        judge.digest,
        len(rates),
        round(median(rates), ROUNDED),
        round(fmean(rates), ROUNDED),
    )


def read_figures(text: str) -> dict[Key, Figure]:
    """Read a table's figures, by what was measured."""
    rows: list[Mapping[str, Any]] = json.loads(text)["figures"]
    figures = [Figure(**row) for row in rows]
    return {figure.key: figure for figure in figures}


@functools.cache
def table() -> dict[Key, Figure]:
    """Return the figures that come with tercet."""
    return read_figures(resources.files("tercet_audio").joinpath(TABLE).read_text(encoding="utf-8"))
