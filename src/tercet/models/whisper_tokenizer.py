"""Whisper's tokeniser for transformers, made of the byte pairs that the openai-whisper package carries."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tercet.errors import MissingExtra, ModelError

END = "<|endoftext|>"
AFTER_LANGUAGES = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
# what a transcript never holds: speaker tags, notes (openai-whisper's Tokenizer.non_speech_tokens)
NOT_SPEECH = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
)
MUSIC = "♩♪♫♬♭♮♯"  # tokens of one byte each, the first one shared


def build(*, is_multilingual: bool, num_languages: int) -> Any:
    """Build a WhisperTokenizer whose every token has openai-whisper's number.

    Raises:
        MissingExtra: openai-whisper isn't installed.
        ModelError: its vocabulary is another one.
    """
    from transformers import AddedToken
    from transformers import WhisperTokenizerFast as Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    ranks = _read_ranks("multilingual" if is_multilingual else "gpt2")
    letters = bytes_to_unicode()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [tuple(map(written, halves(token, ranks))) for token in ranks if len(token) > 1]
    vocabulary = {written(token): rank for token, rank in ranks.items()} | {END: len(ranks)}
    tokenizer = Tokenizer(vocab=vocabulary, merges=merges, unk_token=END, bos_token=END, eos_token=END, pad_token=END)
    names = ["startoftranscript", *list(LANGUAGES)[:num_languages], *AFTER_LANGUAGES]
    added = [AddedToken(f"<|{name}|>", special=True, normalized=False) for name in names]
    # named as special, not only added: transformers counts times from the last special token on
    tokenizer.add_special_tokens({"extra_special_tokens": added})
    tokenizer.set_prefix_tokens()  # they have numbers only now
    return tokenizer


def halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Give the two tokens that byte-pair encoding joins last to make `token`.

    Raises:
        ModelError: no two tokens make it.
    """
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        lowest = min(joined)
        if lowest == len(ranks):
            raise ModelError(f"openai-whisper's vocabulary: no two tokens make {token!r}; install it anew")
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def suppressed(tokenizer: Any) -> list[int]:
    """List the tokens that a transcript never holds, as openai-whisper's default `suppress_tokens="-1"` does."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    found = {encode(" -")[0], encode(" '")[0]}  # at the start of a word; inside one they are spoken
    for symbol in (*NOT_SPEECH, *MUSIC):
        for ids in (encode(symbol), encode(f" {symbol}")):
            if len(ids) == 1 or symbol in MUSIC:
                found.add(ids[0])
    names = ("startoftranscript", *AFTER_LANGUAGES[:-1])
    return sorted(found | {int(tokenizer.convert_tokens_to_ids(f"<|{name}|>")) for name in names})


def _read_ranks(name: str) -> dict[bytes, int]:
    found = importlib.util.find_spec("whisper")
    path = Path(found.origin).parent / "assets" / f"{name}.tiktoken" if found and found.origin else None
    if path is None or not path.is_file():
        raise MissingExtra(
            "converting an openai-whisper model needs 'openai-whisper'; run: pip install 'tercet[audio]'"
        )
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}
