"""Errors cross processes and tell the shell how they ended."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from tercet import errors
from tercet.errors import BackendError, TercetError


def every_error(base: type[TercetError] = TercetError) -> Iterator[type[TercetError]]:
    yield base
    for below in base.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from every_error(below)


@pytest.mark.parametrize("error", list(every_error()), ids=lambda error: error.__name__)
def test_an_error_survives_the_way_to_another_process(error: type[TercetError]) -> None:
    sent = error("pharmacy.yaml:3: a message")
    received = pickle.loads(pickle.dumps(sent))  # what multiprocessing does
    assert type(received) is error
    assert str(received) == "pharmacy.yaml:3: a message"


def test_a_backend_error_keeps_whether_asking_again_may_help() -> None:
    assert pickle.loads(pickle.dumps(BackendError("429", retryable=True))).retryable


@pytest.mark.parametrize("error", list(every_error()), ids=lambda error: error.__name__)
def test_the_docstring_of_the_tree_lists_every_error(error: type[TercetError]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


def test_exit_codes_are_the_promised_ones() -> None:
    found = {error.exit_code for error in every_error()}
    assert found == {1, 2, 3}
