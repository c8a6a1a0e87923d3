"""Cut a carried recording into sentences with transcripts: a small set of real human speech, for evaluation.

The text is the opening of A Tale of Two Cities (Charles Dickens, 1859, public domain), as the recording reads it. The
cuts lie in the middle of pauses, found by loudness. In one piece, Whisper tiny.en and base hear these very words; cut,
they hear "that was" in clip 6 and "we're" or "we are" in clip 12.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path

from tercet.errors import ModelError

RECORDING = "two_cities.wav"
SPEAKER = "two-cities"
# (first second, text); a clip ends where the next begins
SENTENCES = (
    (0.61, "It was the best of times,"),
    (2.77, "it was the worst of times,"),
    (4.60, "it was the age of wisdom,"),
    (6.42, "it was the age of foolishness,"),
    (8.29, "it was the epoch of belief,"),
    (10.43, "it was the epoch of incredulity,"),
    (13.07, "it was the season of light,"),
    (14.87, "it was the season of darkness,"),
    (16.88, "it was the spring of hope,"),
    (18.79, "it was the winter of despair,"),
    (20.82, "we had everything before us, we had nothing before us,"),
    (24.20, "we were all going direct to heaven,"),
    (26.25, "we were all going direct the other way;"),
    (28.58, "in short, the period was so far like the present period,"),
    (32.50, "that some of its noisiest authorities insisted on its being received,"),
    (36.74, "for good or for evil,"),
    (38.51, "in the superlative degree of comparison only."),
)
END_SECONDS = 42.20


def cut(source: Path, folder: Path) -> None:
    """Write one WAV per sentence and `manifest.jsonl` (file, text, speaker) into `folder`; samples are untouched."""
    starts = [start for start, _ in SENTENCES]
    rows = []
    try:
        with wave.open(str(source / RECORDING), "rb") as recording:
            rate = recording.getframerate()
            for index, (start, text) in enumerate(SENTENCES):
                end = (*starts[1:], END_SECONDS)[index]
                name = f"two_cities_{index + 1:02}.wav"
                recording.setpos(round(start * rate))
                _write(folder / name, recording.getparams(), recording.readframes(round((end - start) * rate)))
                rows.append({"file": name, "text": text, "speaker": SPEAKER})
    except (wave.Error, EOFError) as error:
        raise ModelError(f"{RECORDING}: not the WAV file we expect: {error}") from error
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")


def _write(path: Path, shape: wave._wave_params, frames: bytes) -> None:
    with wave.open(str(path), "wb") as clip:
        clip.setnchannels(shape.nchannels)
        clip.setsampwidth(shape.sampwidth)
        clip.setframerate(shape.framerate)
        clip.writeframes(frames)
