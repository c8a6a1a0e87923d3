"""Every error tercet raises on purpose, as one tree.

TercetError                 exit code 1
├── UsageError              exit code 2: the user can fix it before anything runs
│   ├── RecipeError         a recipe names something wrong: file, line, key, value, fix
│   ├── SourceError         an input file can't be used as it is
│   ├── MissingExtra        an optional package is not installed
│   └── TermsError          a licence forbids the declared use
├── StoreError              a run directory can't be trusted or written
│   ├── CorruptError        content doesn't match its digest
│   └── LockedError         another process writes this run
├── ModelError              a model can't be found, or isn't what its digest says
├── BackendError            a text backend or speech engine gave no usable answer (`retryable`)
├── BudgetError             the recipe's budget is spent
├── MakingError             no item could be made: a backend, engine or model failed every time
└── NothingSurvived         exit code 3: records were made, and none passed

A message has three parts: where, what was found, what to do. An error that crosses a process keeps every
argument in `super().__init__(...)`, or it can't be unpickled (tests/core/test_errors.py tries each class).
"""

from __future__ import annotations


class TercetError(Exception):
    """Base of every deliberate error; its text is meant for the user, without a traceback."""

    exit_code = 1


class UsageError(TercetError):
    """The command, recipe or input must change before the work can start."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe holds a key or value that can't be used."""


class SourceError(UsageError):
    """A term list, document or example can't be read as it is."""


class MissingExtra(UsageError):
    """An optional package is absent; the message names the extra that brings it."""


class TermsError(UsageError):
    """The declared `use` isn't allowed by a model's or engine's terms."""


class StoreError(TercetError):
    """A run directory can't be written, or isn't what the command expects."""


class CorruptError(StoreError):
    """Stored content differs from the digest that names it."""


class LockedError(StoreError):
    """Another process holds the run's lock."""


class ModelError(TercetError):
    """A model reference can't be resolved, or its bytes differ from the pinned digest."""


class BackendError(TercetError):
    """A backend or speech engine gave no usable answer; `retryable` says whether asking again may help."""

    def __init__(self, message: str, retryable: bool = False) -> None:  # noqa: FBT001, FBT002 - pickled by position
        super().__init__(message, retryable)
        self.retryable = retryable

    def __str__(self) -> str:
        """Give the message alone."""
        return str(self.args[0])


class BudgetError(TercetError):
    """The recipe's budget of requests, tokens or money is spent."""


class MakingError(TercetError):
    """Not one item could be made; the message names the most frequent failures."""


class NothingSurvived(TercetError):
    """No record passed; the message names the most frequent reasons."""

    exit_code = 3
