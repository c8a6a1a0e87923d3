"""Say what a run was measured on: device, clocks, driver, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

CLOCKS = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what decides how fast `device` is, as far as it can be read."""
    described: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "peft": version_of("peft"),
        "commit": commit(),
        "threads": torch.get_num_threads(),
    }
    if device.type != "cuda":
        return described | {"device": f"{platform.machine()} CPU, {os.cpu_count()} cores"}
    properties = torch.cuda.get_device_properties(device)
    return described | {
        "device": properties.name,
        "capability": list(torch.cuda.get_device_capability(device)),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "processors": properties.multi_processor_count,
        "clocks": read_clocks(device),
    }


def read_clocks(device: torch.device) -> dict[str, str]:
    """Return what nvidia-smi says of driver, clocks, power and temperature; nothing where it can't be asked."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        return {}
    bus = torch.cuda.get_device_properties(device)
    which = getattr(bus, "uuid", None)
    asked = ["nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader"]
    asked += [f"--id=GPU-{which}"] if which else [f"--id={torch.cuda.current_device()}"]
    said = _output(asked)
    return dict(zip(CLOCKS.split(","), (part.strip() for part in said.split(",")), strict=False)) if said else {}


def version_of(package: str) -> str:
    """Return the installed version of a package; "none" where it isn't."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def commit() -> str:
    """Return TERCET_COMMIT, else the commit of the tree that this file lies in, with a "+" where it was changed."""
    told = os.environ.get("TERCET_COMMIT")
    if told:
        return told
    here = Path(__file__).parent
    found = _output(["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"])
    if not found:
        return "unknown"
    changed = _output(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", ".."])
    return found + "+" * bool(changed)


def _output(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return ""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):  # a tool that can't answer leaves the field empty
        return ""
    return ended.stdout.strip()
