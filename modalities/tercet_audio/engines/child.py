"""A process that speaks for others: one engine, one request a line on stdin, samples on stdout.

`python -m tercet_audio.engines.child espeak|pico`. Every request is answered by a fork of a process that has never
spoken, so nothing carries over from one clip to the next (espeak-ng keeps its flutter, Pico reads memory that it has
not written), and a text that crashes the engine costs one clip. It is also what keeps GPL code out of ours: espeak-ng
is loaded here and nowhere else.

Request: a JSON object. Answer: a JSON line {"bytes": n, "rate": r} and n bytes, or {"error": "..."}.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO, Protocol

OVERLONG = 1 << 26  # 64 MiB of answer: no clip of ours comes near


class Speaker(Protocol):
    """What runs in the child."""

    def answer(self, request: dict[str, Any]) -> tuple[bytes, int]:
        """Return (bytes, sample rate or 0); raises ValueError for what can't be said."""


def open_speaker(name: str) -> Speaker:
    """Load one engine."""
    if name == "espeak":
        from tercet_audio.engines.espeak_library import EspeakLibrary

        return EspeakLibrary()
    from tercet_audio.engines.pico_library import PicoLibrary

    return PicoLibrary()


def answer_in_fork(speaker: Speaker, request: dict[str, Any]) -> tuple[bytes, int]:
    """Answer in a fork, which starts from the speaker's pristine state and takes its faults with it.

    Raises:
        ValueError: the speaker refused, or died.
    """
    read_end, write_end = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read_end)
        with open(write_end, "wb") as pipe:
            try:
                data, rate = speaker.answer(request)
                pipe.write(struct.pack("<i", rate) + data)
            except ValueError as error:
                pipe.write(struct.pack("<i", -1) + str(error).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read(OVERLONG)
    _, status = os.waitpid(process, 0)
    if len(answer) < 4 or status != 0:
        raise ValueError(f"the engine died (wait status {status})")
    rate = struct.unpack("<i", answer[:4])[0]
    if rate < 0:
        raise ValueError(answer[4:].decode())
    return answer[4:], rate


def serve(speaker: Speaker, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other end closes."""
    for line in requests:
        try:
            data, rate = answer_in_fork(speaker, json.loads(line))
            header: dict[str, Any] = {"bytes": len(data), "rate": rate}
        except (ValueError, OSError) as error:
            data, header = b"", {"error": str(error)}
        answers.write(json.dumps(header).encode() + b"\n" + data)
        answers.flush()


if __name__ == "__main__":
    serve(open_speaker(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
