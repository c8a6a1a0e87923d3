"""Resolve `hf:` references through huggingface_hub; it alone knows the hub's address and obeys HF_HUB_OFFLINE."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tercet.errors import MissingExtra, ModelError
from tercet.models.reference import Reference, ResolvedModel
from tercet.models.terms import licence_in, output_terms_of
from tercet.randomness import digest

# weights as safetensors alone: a pickle is never fetched. README.md holds the licence.
PATTERNS = ["*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.jinja", "README.md"]
ANSWER_SECONDS = 4.0


def resolve_hub(reference: Reference) -> ResolvedModel:
    """Return the hub's snapshot, from its cache when offline.

    Raises:
        ModelError: the hub doesn't answer, has no such model, or the model has no safetensors.
    """
    hub = _library()
    try:
        path = Path(hub.snapshot_download(reference.name, revision=reference.revision or None, allow_patterns=PATTERNS))
    except (OSError, ValueError, RuntimeError) as error:
        raise _explain(reference, error) from error
    return _resolved(reference, path)


def cached_snapshot(reference: Reference) -> ResolvedModel | None:
    """Return the snapshot in the hub's cache, without asking the network."""
    try:
        hub = _library()
        path = Path(hub.snapshot_download(reference.name, revision=reference.revision or None, local_files_only=True))
        return _resolved(reference, path)
    except (MissingExtra, ModelError, OSError, ValueError):
        return None


@functools.cache
def hub_answers(name: str) -> bool:
    """Ask the hub, once per process and for a few seconds, for the smallest file of the model `name`."""
    try:
        # forced, because a cached file would answer in the hub's place
        _library().hf_hub_download(name, "config.json", force_download=True, etag_timeout=ANSWER_SECONDS)
    except (MissingExtra, OSError, ValueError, RuntimeError):
        return False
    return True


def _resolved(reference: Reference, path: Path) -> ResolvedModel:
    weights = sorted(path.rglob("*.safetensors"))
    if not weights:
        raise ModelError(f"model '{reference}': the hub holds no safetensors for it; name a model or revision that has")
    # a snapshot's folder is called by its commit, which pins every byte
    licence = licence_in(path)
    name = f"hf:{reference.name}@{path.name}"
    named = digest("hf", reference.name, path.name)
    return ResolvedModel(str(reference), path, named, licence, output_terms_of(licence), f"model hub, {name}")


def _explain(reference: Reference, error: Exception) -> ModelError:
    kind = type(error).__name__
    offline = kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout")
    advice = (
        "the hub can't be reached (or HF_HUB_OFFLINE is set) and the model isn't cached; "
        "fetch it once with a network, or use auto, path:./dir or a pkg: model (tercet models list)"
        if offline
        else "check the name and revision, and for a gated model your token"
    )
    first_line = (str(error).strip().splitlines() or [""])[0][:200]
    return ModelError(f"model '{reference}': {kind}: {first_line}; {advice}")


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtra("hf: models need 'huggingface_hub'; run: pip install 'tercet[train]'") from error
    return huggingface_hub
