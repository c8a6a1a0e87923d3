"""Find the verb that was asked for, run it, and turn every way it can end into an exit code and one message.

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing survived, 130 interrupted. Only the module of the verb in hand is
imported; the others appear in `--help` by the words in VERBS.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tercet.cli.output import emit_error
from tercet.errors import TercetError

INTERRUPTED = 130
OVERVIEW = "Make training data in word, sound and image; prove with statistics that what was trained on it is better."


@dataclass(frozen=True)
class Verb:
    """One command: its module's function has the verb's name."""

    module: str
    help: str
    panel: str


START, MAKE, PROVE = "Get going", "Make data", "Train and prove"
VERBS = {
    "init": Verb("init", "Write a recipe that runs as it stands, and small sources for it.", START),
    "doctor": Verb("doctor", "Say what works on this machine, and the fix for what doesn't.", START),
    "validate": Verb("validate", "Check a recipe whole; say what it would make.", START),
    "models": Verb("models", "List the models tercet knows, or fetch one into the cache.", START),
    "preview": Verb("preview", "Make a few records and show them in the terminal.", MAKE),
    "run": Verb("run", "Make a recipe's data; goes on by itself where it was stopped.", MAKE),
    "status": Verb("status", "Say how far a run is, live or past.", MAKE),
    "report": Verb("report", "Write a run's report: one HTML file that needs no network.", MAKE),
    "export": Verb("export", "Write a run's records for other tools, or its tuned model.", MAKE),
    "train": Verb("train", "Train the recipe's adapter on its run; goes on by itself where it was stopped.", PROVE),
    "eval": Verb("eval", "Compare the adapter with its base on frozen suites, and decide.", PROVE),
    "bench": Verb("bench", "Measure the whole loop over several seeds, or the kernels.", PROVE),
    "try": Verb("try_", "Let base and tuned answer one input, side by side.", PROVE),
}


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    arguments = list(arguments) or ["--help"]
    as_json = "--json" in arguments
    try:
        app = build_app(arguments)
        code = app(args=arguments, prog_name="tercet", standalone_mode=False)
        sys.stdout.flush()
    except TercetError as error:
        return emit_error(str(error), error.exit_code, as_json=as_json)
    except KeyboardInterrupt:
        return emit_error("interrupted", INTERRUPTED, as_json=as_json)
    except BrokenPipeError:
        # whoever read our output has left: nothing may be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last place: everything unexpected becomes our named failure
        return _end_unexpected(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _end_unexpected(error: Exception, *, as_json: bool) -> int:
    if hasattr(error, "format_message"):  # typer's own: a wrong option or argument
        usage = getattr(getattr(error, "ctx", None), "command_path", "tercet")
        return emit_error(f"{error.format_message()} See: {usage} --help", 2, as_json=as_json)
    if type(error).__name__ == "Abort":
        return emit_error("interrupted", INTERRUPTED, as_json=as_json)
    with tempfile.NamedTemporaryFile("w", prefix="tercet-bug-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    summary = " ".join(str(error).split())[:200]
    return emit_error(
        f"this is a bug in tercet, not in your input: {type(error).__name__}: {summary} (traceback: {file.name})",
        1,
        as_json=as_json,
    )


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Compose the commands: the one asked for with its options, the others by name alone."""
    app = typer.Typer(
        help=OVERVIEW,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
        no_args_is_help=False,
    )
    app.callback()(_root)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, verb in VERBS.items():
        _add_verb(app, name, verb, is_asked=name == asked)
    if asked not in VERBS:
        _add_plug_ins(app, asked)
    return app


CONTEXT = {"help_option_names": ["-h", "--help"]}


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        from tercet import __version__

        typer.echo(f"tercet {__version__}")
        raise typer.Exit


def _add_verb(app: typer.Typer, name: str, verb: Verb, *, is_asked: bool) -> None:
    if not is_asked:
        app.command(name, help=verb.help, rich_help_panel=verb.panel)(_not_loaded)
        return
    module = importlib.import_module(f"tercet.cli.{verb.module}")
    command: typer.Typer | Callable[..., Any] = module.command
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, help=verb.help, rich_help_panel=verb.panel)
    else:
        app.command(name, help=verb.help, rich_help_panel=verb.panel)(command)


def _add_plug_ins(app: typer.Typer, asked: str | None) -> None:
    """Mount `tercet <modality> <command>`; a command's module is imported only when its modality is asked for."""
    from tercet import registry

    for name, modality in registry.modalities().items():
        if not modality.commands:
            continue
        group = typer.Typer(add_completion=False)
        group.callback()(_group)
        for command, code in modality.commands.items():
            group.command(command)(registry.load(code, modality.extra) if name == asked else _not_loaded)
        app.add_typer(group, name=name, help=f"Commands of the {name} plug-in.", rich_help_panel="Plug-ins")


def _group() -> None:
    """Hold a plug-in's commands together."""


def _not_loaded() -> None:
    """Stand for a command in a help text; another one was asked for."""
