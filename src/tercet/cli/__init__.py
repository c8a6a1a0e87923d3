"""The command `tercet`: one file per verb, imported when it's asked for."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from tercet.cli.app import run_command

    sys.exit(run_command(sys.argv[1:]))
