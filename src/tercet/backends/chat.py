"""What every text backend is asked and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tercet.records import ModelUse


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question: messages with `role` and `content`, and how to decode. Temperature 0 decodes greedily."""

    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer; `finish_reason` is "stop" when the model ended by itself, "length" when it was cut off."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: ModelUse
