"""A clip for human eyes and ears: a player, its waveform, what is said, and by whom. Everything in it is escaped."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from tercet.modality import Shown
from tercet.records import Columns
from tercet_audio.augment import Clip
from tercet_audio.payload import decode_clip

BARS, HEIGHT = 96, 40
COLOUR = "#6b7fa8"  # readable on a light page and on a dark one; a picture can't ask which it is on


def show(columns: Columns) -> Shown:
    """Render a clip; the HTML needs no network."""
    said = f"{columns['voice']} · {columns['accent']} · {_pace(columns)} · {columns['seconds']:.1f} s"
    text = columns["text"]
    term = f" · term: {columns['term']}" if columns["term"] else ""
    sound = base64.b64encode(columns["audio"]).decode()
    picture = base64.b64encode(waveform(decode_clip(columns["audio"])).encode()).decode()
    label = escape(f"Waveform of “{text}”", quote=True)
    html = (
        f'<figure class="tercet-clip"><img src="data:image/svg+xml;base64,{picture}" alt="{label}">'
        f'<audio controls preload="none" src="data:audio/flac;base64,{sound}"></audio>'
        f"<figcaption>{escape(text)}</figcaption><small>{escape(said + term)}</small></figure>"
    )
    return Shown(f"{_printable(text)} [{_printable(said + term)}]", html)


def waveform(clip: Clip) -> str:
    """Draw the peak of each of BARS equal stretches of a clip, as an SVG picture."""
    stretches = np.array_split(np.abs(clip), BARS)
    peaks = [float(stretch.max(initial=0)) for stretch in stretches]
    loudest = max(peaks) or 1.0
    strokes = "".join(f"M{at + 0.5:g} {(HEIGHT - tall) / 2:.1f}v{tall:.1f}" for at, tall in _bars(peaks, loudest))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {BARS} {HEIGHT}" width="{BARS * 4}" height="{HEIGHT}" '
        f'preserveAspectRatio="none"><path d="{strokes}" stroke="{COLOUR}" stroke-width=".6"/></svg>'
    )


def _bars(peaks: list[float], loudest: float) -> list[tuple[int, float]]:
    return [(at, max(0.5, peak / loudest * HEIGHT)) for at, peak in enumerate(peaks)]


def _pace(columns: Columns) -> str:
    realised = columns["realised_pace"]
    asked = f"pace {columns['pace']:g}"
    return asked if realised in (None, columns["pace"]) else f"{asked} (realised {realised:.2f})"


def _printable(text: str) -> str:
    """Show no control character to a terminal: it could move the cursor or change colours."""
    return "".join(char if char.isprintable() else " " for char in text)
