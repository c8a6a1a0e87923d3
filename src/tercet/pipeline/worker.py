"""A worker process, `python -m tercet.pipeline.worker <fd>`: loads one stage's code and answers batches.

Started afresh (never forked), so that thread counts and CUDA_VISIBLE_DEVICES are set before torch is imported and a
script or notebook needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from tercet.errors import TercetError
from tercet.modality import NoAnswers
from tercet.pipeline.stages import Result, Runner

FLUSH_SECONDS = 0.2  # a slow generator's results reach the journal one by one, a fast one's together


class RemoteAnswers(NoAnswers):
    """The journal's answers, asked of the driver over the worker's pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def _ask(self, *message: Any) -> Any:
        self._pipe.send(message)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def recall(self, key: str) -> bytes | None:
        """Return the answer kept under `key`, or None."""
        found: bytes | None = self._ask("recall", key)
        return found

    def keep(self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0) -> None:
        """Keep an answer durably."""
        self._ask("keep", key, value, requests, tokens, money)

    def reserve(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Book spending before it happens."""
        self._ask("reserve", requests, tokens)


def serve(pipe: Connection) -> None:
    """Answer batches until the driver sends None or goes away."""
    stage, cores = pipe.recv()
    try:
        runner = Runner(stage, cores, RemoteAnswers(pipe))
    except TercetError as error:
        pipe.send(("unable", error))
        return
    pipe.send(("ready",))
    while (message := pipe.recv()) is not None:
        results: list[Result] = []
        sent = time.monotonic()
        try:
            for result in runner(message):
                results.append(result)
                if time.monotonic() - sent > FLUSH_SECONDS:
                    pipe.send(("some", results))
                    results, sent = [], time.monotonic()
            pipe.send(("done", results))
        except TercetError as error:
            pipe.send(("unable", error))


def main() -> None:
    """Run the worker on the pipe whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver drains; a worker finishes its batch
    with Connection(int(sys.argv[1])) as pipe:
        try:
            serve(pipe)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the driver is gone: what wasn't journalled will be made again


if __name__ == "__main__":
    main()
