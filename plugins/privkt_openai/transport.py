"""One request at a time over the wire, asked again while that may help."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import openai

from privkt_openai.answers import Useless
from privkt_openai.failures import KNOWN_CODES, Failure, ServerFailed, Trouble, seconds_to_wait
from privkt_openai.options import Options

T = TypeVar("T")
LONGEST_BACKOFF = 30.0
_asking: ContextVar[bool] = ContextVar("privkt_openai_asking", default=False)


@dataclass
class Traffic:
    """What a backend asked of its server so far; numbers only."""

    requests: int = 0
    answers: int = 0
    from_cache: int = 0
    retries: int = 0
    useless: int = 0
    tokens: int = 0


class _NoTextInLogs(logging.Filter):
    """Drops what the client library logs about our requests: at level DEBUG it would write whole prompts."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _asking.get()


_FILTER = _NoTextInLogs()


def _keep_text_out_of_logs() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name == "openai" or name.startswith("openai."):
            logging.getLogger(name).addFilter(_FILTER)


class Transport:
    """An open connection pool to the server; use as an async context manager inside one event loop.

    Guarantee: text goes to the host of `base_url` alone: redirects are not followed, and a server on loopback
    is never reached through a proxy.
    """

    def __init__(self, options: Options, key: str | None, traffic: Traffic, on_wait: Callable[[str], None]) -> None:
        self._options = options
        self._key = key
        self._traffic = traffic
        self._on_wait = on_wait
        self._not_before = 0.0
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> Transport:
        _keep_text_out_of_logs()
        self._token = _asking.set(True)
        self._client = openai.AsyncOpenAI(
            base_url=self._options.base_url,
            api_key=self._key or "none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                trust_env=not self._options.on_loopback,
                timeout=openai.Timeout(self._options.timeout),
            ),
            timeout=self._options.timeout,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        _asking.reset(self._token)

    def stop(self) -> None:
        """No request is tried again from now on; those in flight may still be answered."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def ask(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], *, patience: int | None = None
    ) -> T:
        """What `read` makes of the reply; asked again after failures that may pass, up to `max_retries` times.

        `patience` bounds the further attempts after a plain server error or a useless reply, for probes that
        expect them. Pauses grow exponentially with jitter; Retry-After is honoured by every request in flight.
        Raises: ServerFailed.
        """
        most, last = self._options.max_retries, None
        for attempt in range(most + 1):
            await self._pause_as_asked()
            if last is not None and self.stopped:
                raise ServerFailed(last, attempt)
            self._traffic.requests += 1
            failure, answer = await self._once(path, body, read)
            if failure is None:
                self._traffic.answers += 1
                return answer
            blunt = failure.trouble is Trouble.USELESS or failure.status in (500, 501, 502)
            limit = most if patience is None or not blunt else min(patience, most)
            if not failure.transient or attempt >= limit or self.stopped:
                raise ServerFailed(failure, attempt + 1)
            self._traffic.retries += 1
            last = failure
            await self._back_off(attempt, failure)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> tuple[Failure | None, Any]:
        # Failures are returned, not raised: an exception of the client would drag request and reply along.
        try:
            raw = await self._send(path, dict(body))
            return None, read(json.loads(raw.http_response.content))
        except openai.APITimeoutError:
            return Failure(Trouble.TIMEOUT), None
        except openai.APIConnectionError:
            return Failure(Trouble.CONNECTION), None
        except openai.APIStatusError as error:
            code = error.code if error.code in KNOWN_CODES else None
            pause = seconds_to_wait(error.response.headers.get("retry-after"))
            return Failure(Trouble.STATUS, status=error.status_code, code=code, retry_after=pause), None
        except Useless as error:
            reason = str(error)
        except (ValueError, RecursionError):
            reason = "not JSON"
        self._traffic.useless += 1
        return Failure(Trouble.USELESS, reason=reason), None

    async def _send(self, path: str, body: dict[str, Any]) -> Any:
        model = body.pop("model")
        if path == "chat":
            chat = self._client.chat.completions.with_raw_response
            return await chat.create(model=model, messages=body.pop("messages"), extra_body=body)
        if path == "completions":
            text = self._client.completions.with_raw_response
            return await text.create(model=model, prompt=body.pop("prompt"), extra_body=body)
        embeddings = self._client.embeddings.with_raw_response
        return await embeddings.create(model=model, input=body.pop("input"), encoding_format="float", extra_body=body)

    async def _back_off(self, attempt: int, failure: Failure) -> None:
        pause = min(self._options.backoff * 2**attempt, LONGEST_BACKOFF) * random.uniform(0.5, 1.0)
        if failure.retry_after is not None:
            self._not_before = max(self._not_before, asyncio.get_running_loop().time() + failure.retry_after)
        self._on_wait(f"{failure.short}, asking again in {max(pause, failure.retry_after or 0):.1f} s")
        await self._rest(pause)

    async def _pause_as_asked(self) -> None:
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
