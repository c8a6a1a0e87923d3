"""Digests and seeds: the same words always give the same bytes, whatever the process or the order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST_HEX = 32  # 128 bits: a billion records collide with probability 1e-21
# made once: json.dumps builds an encoder per call, half of what a digest of a small item costs
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Write JSON in one spelling only: sorted keys, no spaces, UTF-8 kept, no NaN.

    Raises:
        ValueError: a float is NaN or infinite, which JSON can't hold.
    """
    return _ENCODER.encode(value)


def digest(*parts: str | bytes | Mapping[str, Any]) -> str:
    """Hash `parts` into 32 hex digits; each part is length-prefixed, so ("ab", "c") differs from ("a", "bc")."""
    hasher = hashlib.sha256()
    for part in parts:
        # bytes and str first: asking whether something is a Mapping costs more than hashing it
        text = part if isinstance(part, bytes | str) else canonical_json(part)
        raw = text.encode() if isinstance(text, str) else text
        hasher.update(len(raw).to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.hexdigest()[:DIGEST_HEX]


def seed_for(recipe_seed: int, item_key: str, stage: str, attempt: int = 0) -> int:
    """Derive a 63-bit seed for one item in one stage: independent of position, worker and order."""
    return int(digest(str(recipe_seed), item_key, stage, str(attempt))[:16], 16) >> 1


def answer_key(item_key: str, stage: str, turn: int, attempt: int, request: Mapping[str, Any], model: str) -> str:
    """Name one expensive answer: asking the same model the same thing for the same item is asked once."""
    return digest(item_key, stage, str(turn), str(attempt), request, model)
