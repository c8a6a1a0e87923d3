"""`tercet doctor`: what works on this machine, and the fix for what doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tercet.cli.output import Json, emit, note, show, table
from tercet.compat import mend_torchaudio
from tercet.modality import Check


def command(
    fix: Annotated[
        bool, typer.Option("--fix", help="Remove a torchaudio's CUDA extension beside a CPU torch, then look.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Say what works on this machine, and the fix for what doesn't."""
    from tercet.doctor import check_machine

    if fix:
        note(mend_torchaudio())
    checks = list(check_machine(Path.cwd()))
    broken = [check for check in checks if _state(check) == "fail"]
    if as_json:
        emit({"checks": [_line(check) for check in checks], "broken": len(broken)})
    else:
        rows = table("", ["", "what", "found", "fix"])
        for check in checks:
            rows.add_row(_state(check), check.name, check.detail, "" if check.passed else check.fix)
        show(rows, f"{len(broken)} broken" if broken else "nothing that is required is broken")
    return 1 if broken else 0


def _state(check: Check) -> str:
    """Judge a line: `fail` needs mending, a `note` is an ability this machine lacks."""
    return "pass" if check.passed else "fail" if check.required else "note"


def _line(check: Check) -> dict[str, str]:
    return {"name": check.name, "state": _state(check), "detail": check.detail, "fix": check.fix}
