"""Find the installed modalities and load the code they name."""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import entry_points
from typing import Any

from tercet.errors import MissingExtra, UsageError
from tercet.modality import Modality

GROUP = "tercet.modalities"


@functools.cache
def modalities() -> dict[str, Modality]:
    """Map each installed modality's name to its value, in alphabetical order."""
    found: dict[str, Modality] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        value = point.load()
        if not isinstance(value, Modality):
            raise UsageError(
                f"entry point {GROUP}:{point.name} is {type(value).__name__}; it must be a tercet.modality.Modality"
            )
        found[point.name] = value
    return found


def modality(name: str) -> Modality:
    """Return the modality called `name`, or say which are installed."""
    installed = modalities()
    if name not in installed:
        known = ", ".join(installed) or "none"
        raise UsageError(
            f"modality {name!r} is not installed (installed: {known}); "
            f"install the package that brings it, for ours: pip install 'tercet[{name}]'"
        )
    return installed[name]


def load(named: str, extra: str = "") -> Any:
    """Import "module:attribute"; a missing package becomes an error that names the extra."""
    module_name, _, attribute = named.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.split(".")[0] == module_name.split(".")[0]:
            raise UsageError(f"{named!r} names a module that does not exist: {missing}") from error
        advice = f"; run: pip install 'tercet[{extra}]'" if extra else ""
        raise MissingExtra(f"{named!r} needs the package {missing!r}{advice}") from error
    except AttributeError as error:
        raise UsageError(f"{named!r} names no attribute of {module_name}") from error
