"""Read what an endpoint sent back; nothing in it is trusted."""

from __future__ import annotations

import email.utils
import json
from datetime import UTC, datetime
from typing import Any, NoReturn

from tercet.backends.chat import Completion
from tercet.records import ModelUse

SHOWN_CHARACTERS = 200


class Fault(Exception):
    """One attempt without a usable answer; becomes a BackendError once the attempts are spent.

    `retry_now` asks for another attempt; `retryable` says whether a later run may do better.
    """

    def __init__(
        self,
        found: str,
        fix: str,
        *,
        retry_now: bool = False,
        retryable: bool = True,
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(found, fix)
        self.found = found
        self.fix = fix
        self.retry_now = retry_now
        self.retryable = retryable
        self.wait_seconds = wait_seconds


def parse_completion(raw: bytes, secret: str, model: ModelUse) -> Completion:
    """Read a chat completion.

    Raises:
        Fault: HTML, invalid JSON, no choices, or an empty text. Asking again would cost again, so it isn't done.
    """
    try:
        answer = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        what = "HTML" if raw.lstrip()[:1] == b"<" else "invalid JSON"
        fix = "check the url: it should be the API's, ending in /v1" if what == "HTML" else "check the endpoint's log"
        raise Fault(f"{what} instead of a completion: {show(raw, secret)}", fix) from error
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise Fault(f"no choices in the answer: {show(raw, secret)}", "check that it is a chat model") from error
    if not isinstance(text, str) or not text.strip():
        fix = "raise max_tokens or try another model"
        raise Fault(f"an empty completion: {show(raw, secret)}", fix)
    usage = answer.get("usage")
    counts = [_count(usage, name, raw, secret) for name in ("prompt_tokens", "completion_tokens")]
    return Completion(text, str(choice.get("finish_reason") or "stop"), counts[0], counts[1], model)


def show(raw: bytes, secret: str) -> str:
    """Show the head of what was received on one line; a key that the endpoint echoes is struck out."""
    text = raw[: 4 * SHOWN_CHARACTERS + len(secret)].decode("utf-8", errors="replace")
    if secret:
        text = text.replace(secret, "***")
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())
    return (line[:SHOWN_CHARACTERS] + "..." if len(line) > SHOWN_CHARACTERS else line) or "nothing"


def retry_after_seconds(header: str) -> float | None:
    """Read Retry-After, in seconds or as an HTTP date; None when there is none that can be read."""
    header = header.strip()
    if not header:
        return None
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _count(usage: Any, name: str, raw: bytes, secret: str) -> int:
    """Read a count of tokens; an endpoint that doesn't count gives 0."""
    value = usage.get(name) if isinstance(usage, dict) else None
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Fault(f"usage.{name} is no count: {show(raw, secret)}", "check the endpoint's log")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
