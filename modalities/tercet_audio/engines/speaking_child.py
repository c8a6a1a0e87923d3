"""Our end of the pipe to `tercet_audio.engines.child`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np

from tercet.errors import BackendError
from tercet_audio.engines.base import Speech

ANSWER_SECONDS = 60  # an engine that is silent for longer hangs; a long sentence takes it 0.1 s


class SpeakingChild:
    """A child process that speaks; started with the first request, ended with this object.

    Args:
        name: which engine the child loads.
        environment: variables to set beside our own.
    """

    def __init__(self, name: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def speak(self, **request: Any) -> Speech:
        """Ask for 16-bit mono samples."""
        data, rate = self.ask(**request)
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        return Speech(samples, rate)

    def ask(self, **request: Any) -> tuple[bytes, int]:
        """Ask, and return (bytes, rate).

        Raises:
            BackendError: the engine refused this request (not retryable), or died or hung (retryable).
        """
        process = self._start()
        assert process.stdin
        assert process.stdout
        alarm = threading.Timer(ANSWER_SECONDS, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            header = json.loads(process.stdout.readline() or b'{"died": true}')
            data = process.stdout.read(header.get("bytes", 0))
        except OSError as error:
            self._process = None
            raise BackendError(f"{self.name}: its process is gone: {error}", retryable=True) from error
        finally:
            alarm.cancel()
        if "error" in header:
            raise BackendError(f"{self.name}: {header['error']}", retryable=False)
        if "died" in header:
            self._process = None
            raise BackendError(f"{self.name}: its process ended without an answer; run: tercet doctor", retryable=True)
        return data, int(header["rate"])

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tercet_audio.engines.child", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
            weakref.finalize(self, _end, self._process)
        return self._process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the child's stdin, which ends it, and take its exit status."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):  # a killed child never took what was still in our buffer
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
