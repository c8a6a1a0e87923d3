"""The machine: what a measurement was made on, said beside every figure, and whether it has a GPU."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Give cores, memory, processor, system and Python of this machine; no host name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "processor": _processor(),
        "system": platform.machine(),
        "python": platform.python_version(),
    }


def version_of(distribution: str) -> str:
    """Give an installed package's version, "absent" without it: another version may write other answers."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def has_gpu() -> bool:
    """Tell whether a driver of an NVIDIA or AMD GPU is loaded, without importing torch."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or sys.platform


def say_machine(machine: dict[str, Any]) -> str:
    """Say a described machine in one line."""
    return f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, Python {machine['python']}"
