"""Whisper's labels: what its decoder is given first, and what it learns to write of a window.

    plain:       <|startoftranscript|> (<|en|> <|transcribe|>) <|notimestamps|>   text text<|endoftext|>
    with times:  <|startoftranscript|> (<|en|> <|transcribe|>)   <|0.00|> text<|2.34|><|2.94|> text<|5.10|><|endoftext|>

Shapes: N windows, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tercet_audio.windows import Window

if TYPE_CHECKING:
    import torch

MAX_LABELS = 448  # Whisper's decoder positions
IGNORED = -100
TIME_STEP = 0.02  # seconds: the number after <|notimestamps|> is <|0.00|>, the last one <|30.00|>
START, NO_TIMESTAMPS, TRANSCRIBE = "<|startoftranscript|>", "<|notimestamps|>", "<|transcribe|>"


class Tokens:
    """Makes labels: `prefix` is forced and ends with <|notimestamps|>, `end` closes them."""

    def __init__(self, tokenizer: Any, prefix: Sequence[int], end: int) -> None:
        self.tokenizer, self.prefix, self.end = tokenizer, list(prefix), end

    @property
    def room(self) -> int:
        """Give the number of tokens, of text and of times, that Whisper's decoder has room for."""
        return MAX_LABELS - len(self.prefix) - 1

    def words(self, text: str) -> list[int]:
        """Give a text's tokens; none for a text of blanks."""
        if not text.strip():
            return []
        # split: what looks like <|endoftext|> in a transcript is text
        coded = self.tokenizer(" " + text.strip(), add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = coded.input_ids
        return ids

    def count(self, text: str) -> int:
        """Count the tokens of a clip's text and its two times; 0 where there is no text."""
        words = self.words(text)
        return len(words) + 2 if words else 0

    def __call__(self, window: Window) -> tuple[list[int], list[int]]:
        """Give the forced tokens of a window, and those that are learned."""
        if not window.has_timestamps:
            return self.prefix, [*self.words(window.text), self.end]
        timed: list[int] = []
        for segment in window.segments:
            timed += [self._time(segment.start), *self.words(segment.text), self._time(segment.end)]
        return self.prefix[:-1], [*timed, self.end]

    def batch(self, windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give decoder inputs and labels [N, L]: padding and the forced tokens carry no loss, times and the end do."""
        import torch

        rows = [self(window) for window in windows]
        longest = max(len(forced) + len(learned) for forced, learned in rows) - 1
        inputs = torch.full((len(rows), longest), self.end)
        labels = torch.full((len(rows), longest), IGNORED)
        for at, (forced, learned) in enumerate(rows):
            last = len(forced) + len(learned) - 1
            inputs[at, :last] = torch.tensor([*forced, *learned][:-1])
            labels[at, len(forced) - 1 : last] = torch.tensor(learned)
        return inputs, labels

    def _time(self, seconds: float) -> int:
        return self.prefix[-1] + 1 + round(seconds / TIME_STEP)
