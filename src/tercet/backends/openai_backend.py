"""Ask an OpenAI-compatible endpoint: bounded concurrency, time-outs that exclude the queue, retries that listen."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from tercet.backends.answers import Fault, parse_completion, retry_after_seconds, show
from tercet.backends.chat import ChatRequest, Completion
from tercet.errors import BackendError, UsageError
from tercet.randomness import digest
from tercet.records import ModelUse

if TYPE_CHECKING:
    import aiohttp

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
FIXES = {
    400: "check the model's name and the request's limits",
    401: "check the key in the environment variable that key_env names",
    403: "check that the key may use this model",
    404: "check the url (it usually ends in /v1) and the model's name",
    413: "shorten the prompt",
    429: "lower the concurrency, or run again later with --retry-failed",
}
MAX_BODY_BYTES = 8 << 20
MAX_RETRY_AFTER_SECONDS = 300.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class OpenAIBackend:
    """Asks `url` (`.../v1`) for chat completions by `model`, at most `concurrency` at a time.

    The key is `key`, or what the environment variable `key_env` holds; it appears in no message and no repr.
    `backoff_seconds` is the first pause between attempts; it doubles, with jitter, and Retry-After overrides it.
    """

    def __init__(  # noqa: PLR0913 - one argument per setting of the recipe
        self,
        url: str,
        model: str,
        *,
        key: str = "",
        key_env: str = "",
        timeout_seconds: float = 60.0,
        max_attempts: int = 5,
        concurrency: int = 16,
        backoff_seconds: float = 0.5,
        licence: str = "unknown",
        output_terms: str = "unknown",
    ) -> None:
        self.concurrency = concurrency
        self._url, self.place = _endpoint(url)
        self._key = key or _read_key(key_env)
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts
        self._backoff_seconds = backoff_seconds
        self._model_name = model
        self.model = ModelUse(f"endpoint:{model}", digest("endpoint", self.place, model), licence, output_terms)
        self._slots = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._resume_at = 0.0  # event loop time before which nobody asks, after a 429 or 503 with Retry-After

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request, trying again where that may help.

        Raises:
            BackendError: no usable answer; says where, what was received and what to do.
        """
        body = self._body(request)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._ask(body)
            except Fault as fault:
                if not fault.retry_now or attempt >= self._max_attempts:
                    raise self._explain(fault, attempt) from fault
                pause = self._pause(fault, attempt)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _body(self, request: ChatRequest) -> bytes:
        content: dict[str, Any] = {
            "model": self._model_name,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.stop:
            content["stop"] = list(request.stop)
        try:
            return json.dumps(content, allow_nan=False).encode()
        except ValueError as error:
            raise BackendError(f"{self.place}: temperature {request.temperature} can't be sent as JSON") from error

    async def _ask(self, body: bytes) -> Completion:
        """Send one attempt; a slot is held only while a request is out."""
        async with self._slots:
            await self._wait_for_leave()
            try:
                # starts here: time spent waiting for a slot isn't the endpoint's
                async with asyncio.timeout(self._timeout_seconds):
                    status, headers, raw = await self._send(body)
            except TimeoutError as error:
                fix = "raise timeout_seconds or lower the concurrency"
                raise Fault(f"no whole answer within {self._timeout_seconds:g} s", fix, retry_now=True) from error
        if status == 200:
            return parse_completion(raw, self._key, self.model)
        fix = FIXES.get(status, "run again later with --retry-failed" if status >= 500 else "check url and model")
        raise Fault(
            f"HTTP {status}: {show(raw, self._key)}",
            fix,
            retry_now=status in RETRIED_STATUSES,
            retryable=status in RETRIED_STATUSES,
            wait_seconds=retry_after_seconds(headers.get("Retry-After", "")),
        )

    async def _send(self, body: bytes) -> tuple[int, Any, bytes]:
        import aiohttp

        session = self._session or self._connect()
        try:
            # a redirect would carry the key elsewhere
            async with session.post(self._url, data=body, allow_redirects=False) as response:
                raw = bytearray()
                async for chunk in response.content.iter_any():
                    raw += chunk
                    if len(raw) > MAX_BODY_BYTES:
                        raise Fault(f"an answer of more than {MAX_BODY_BYTES >> 20} MiB", "lower max_tokens")
                return response.status, response.headers, bytes(raw)
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            said = show(str(error).encode(), self._key)
            fix = "check that the endpoint runs and the url is right"
            raise Fault(f"{type(error).__name__}: {said}", fix, retry_now=True) from error

    def _connect(self) -> aiohttp.ClientSession:
        import aiohttp

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        is_local = urlsplit(self._url).hostname in LOOPBACK
        self._session = aiohttp.ClientSession(
            # our own slots bound the connections, and our own clock the time
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_seconds),
            headers=headers,
            # looking up the proxy costs per request, so only where one is set
            trust_env=bool(getproxies_environment()) and not is_local,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    async def _wait_for_leave(self) -> None:
        while (left := self._resume_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)

    def _pause(self, fault: Fault, attempt: int) -> float:
        """Seconds until the next attempt; what Retry-After asks holds for every request of this backend."""
        if fault.wait_seconds is not None:
            if fault.wait_seconds > MAX_RETRY_AFTER_SECONDS:
                raise self._explain(fault, attempt) from fault
            now = asyncio.get_running_loop().time()
            self._resume_at = max(self._resume_at, now + fault.wait_seconds)
            return fault.wait_seconds
        # jitter: requests that failed together shouldn't come back together
        wait: float = min(60.0, self._backoff_seconds * 2 ** (attempt - 1))
        return wait * random.uniform(0.5, 1.0)

    def _explain(self, fault: Fault, attempts: int) -> BackendError:
        tried = f" ({attempts} attempts)" if attempts > 1 else ""
        return BackendError(f"{self.place}: {fault.found}{tried}; {fault.fix}", fault.retryable)


def _endpoint(url: str) -> tuple[str, str]:
    """Return the address to post to, and how messages name it: no credentials, no query."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("endpoint url: not an http(s) address; write it like http://localhost:8000/v1")
    if parts.username or parts.password:
        raise UsageError(f"endpoint url of {parts.hostname}: holds credentials; name the key's variable in key_env")
    path = parts.path.rstrip("/") or "/v1"
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    place = f"{parts.scheme}://{parts.netloc}{path}"
    return (f"{place}?{parts.query}" if parts.query else place), place


def _read_key(key_env: str) -> str:
    if key_env and not os.environ.get(key_env):
        raise UsageError(f"key_env: the environment variable {key_env} isn't set; run: export {key_env}=...")
    return os.environ[key_env] if key_env else ""
