"""A fake endpoint that misbehaves on request.

Run it alone with `python tests/core/backends/server.py --latency-ms 200`; it prints its address.
The model's name in a request chooses the behaviour (MODES); `429*2` misbehaves twice and then answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time
from typing import Any

from aiohttp import web

USAGE = '"usage": {"prompt_tokens": 5, "completion_tokens": 2}'
GOOD = f'{{"choices": [{{"message": {{"content": "%s"}}, "finish_reason": "stop"}}], {USAGE}}}'
BODIES = {
    "html": (200, "text/html", "<html><body>Welcome to nginx!</body></html>"),
    "bad-json": (200, "application/json", '{"choices": [{"mess'),
    "deep-json": (200, "application/json", "[" * 200_000),
    "empty": (200, "application/json", GOOD % "  "),
    "null": (200, "application/json", '{"choices": [{"message": {"content": null}}]}'),
    "no-choices": (200, "application/json", '{"choices": []}'),
    "not-an-object": (200, "application/json", "[1, 2]"),
    "nan": (200, "application/json", '{"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": NaN}}'),
    "bad-usage": (200, "application/json", GOOD.replace("5", '"five"') % "hi"),
    "huge": (200, "application/json", "x" * (9 << 20)),
    "400": (400, "application/json", '{"error": {"message": "max_tokens is too large"}}'),
    "401": (401, "application/json", '{"error": "wrong key: %s"}'),
    "404": (404, "application/json", '{"error": "no such model"}'),
    "500": (500, "text/plain", "internal error"),
    "502": (502, "text/html", "<h1>Bad gateway</h1>"),
    "503": (503, "text/plain", "overloaded"),
    "504": (504, "text/plain", "gateway timeout"),
}
MODES = ("ok", "429", "429-date", "429-hour", "redirect", "hang", "hang-body", "reset", *BODIES)


@dataclass
class FakeEndpoint:
    """The state of one server: what it was asked, when, and how many requests were open at once."""

    latency_seconds: float = 0.0
    mode: str = ""  # overrides the model's name
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    num_open: int = 0
    most_open: int = 0
    url: str = ""
    keeps: bool = True

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            return await self._answer(request)
        finally:
            self.num_open -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        if self.keeps:
            self.requests.append(asked)
            self.times.append(time())
            self.keys.append(request.headers.get("Authorization", ""))
        mode, _, times = (self.mode or asked["model"]).partition("*")
        self.counts[mode] += 1
        if times and self.counts[mode] > int(times):
            mode = "ok"
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        if mode in BODIES:
            status, kind, body = BODIES[mode]
            body = body.replace("%s", request.headers.get("Authorization", ""))
            return web.Response(status=status, content_type=kind, text=body)
        if mode.startswith("429"):
            after = {"429": "1", "429-date": formatdate(time() + 2, usegmt=True), "429-hour": "3600"}[mode]
            return web.Response(status=429, text="slow down", headers={"Retry-After": after})
        if mode in ("hang", "hang-body", "reset", "redirect"):
            return await self._break(request, mode)
        said = json.dumps(str(asked["messages"][-1]["content"]))[1:-1]
        return web.Response(body=(GOOD % said).encode(), content_type="application/json")

    async def _break(self, request: web.Request, mode: str) -> web.StreamResponse:
        if mode == "redirect":
            return web.Response(status=307, headers={"Location": "/stolen"})
        if mode == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if mode == "hang-body":
            await response.prepare(request)
            await response.write(b'{"choices": [')
        await asyncio.sleep(30)
        return response

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        return app


async def serve(endpoint: FakeEndpoint, listening: socket.socket, stop: asyncio.Event, ready: Any) -> None:
    # a hanging handler must not hold the test's end back
    runner = web.AppRunner(endpoint.app(), access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    ready()
    await stop.wait()
    await runner.cleanup()


@contextmanager
def running(latency_seconds: float = 0.0) -> Iterator[FakeEndpoint]:
    """Serve in a thread of this process, on a free port of the loopback."""
    endpoint = FakeEndpoint(latency_seconds)
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    endpoint.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    loop, stop, is_ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    thread = threading.Thread(
        target=loop.run_until_complete, args=(serve(endpoint, listening, stop, is_ready.set),), daemon=True
    )
    thread.start()
    assert is_ready.wait(10)
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
        listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--mode", default="", help=f"one of {', '.join(MODES)}; default: the model's name")
    given = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", given.port), backlog=512)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    endpoint = FakeEndpoint(given.latency_ms / 1000, given.mode, keeps=False)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(endpoint, listening, asyncio.Event(), lambda: print(url, flush=True)))  # noqa: T201


if __name__ == "__main__":
    main()
