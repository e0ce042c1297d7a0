"""What the connection keeps quiet, and how long it waits."""

from __future__ import annotations

import asyncio
import logging

import pytest
from privkt_openai.answers import read_generation
from privkt_openai.failures import ServerFailed
from privkt_openai.options import Options
from privkt_openai.transport import Traffic, Transport

BODY = {"model": "m", "prompt": "p"}


def options(server, **more):
    return Options(base_url=server.base_url, model="m", **{"backoff": 0.0, **more})


def answer(reply):
    return read_generation(reply, "completions").text


@pytest.mark.parametrize("name", ["openai", "openai._base_client", "openai._legacy_response"])
def test_the_client_library_logs_nothing_while_we_ask_and_as_ever_afterwards(faulty, caplog, name):
    caplog.set_level(logging.DEBUG)
    server, log = faulty(), logging.getLogger(name)

    async def ask():
        async with Transport(options(server), None, Traffic(), print) as transport:
            log.debug("canary-7351")
            await asyncio.create_task(transport.ask("completions", BODY, answer))
            log.warning("canary-7351")

    asyncio.run(ask())
    assert not [record for record in caplog.records if record.name.startswith("openai")]
    log.debug("somebody else's request")
    assert "somebody else's request" in caplog.text


def test_pauses_double_up_to_a_bound_with_jitter(faulty, monkeypatch):
    server = faulty("--fault", "503")
    pauses = []

    async def rest(self, seconds):
        pauses.append(seconds)

    monkeypatch.setattr(Transport, "_rest", rest)

    async def ask():
        settings = options(server, backoff=1.0, max_retries=8)
        async with Transport(settings, None, Traffic(), lambda note: None) as transport:
            await transport.ask("completions", BODY, answer)

    with pytest.raises(ServerFailed) as caught:
        asyncio.run(ask())
    assert caught.value.attempts == 9
    most = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert len(pauses) == len(most)
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, most, strict=True))
    assert len({pause / bound for pause, bound in zip(pauses, most, strict=True)}) == len(most)


def test_stopping_ends_pauses_at_once(faulty):
    server = faulty("--fault", "503", "--retry-after", "60")

    async def ask():
        async with Transport(options(server), None, Traffic(), lambda note: None) as transport:
            asked = asyncio.create_task(transport.ask("completions", BODY, answer))
            while transport._traffic.retries == 0:
                await asyncio.sleep(0.01)
            transport.stop()
            await asyncio.wait_for(asked, 5)

    with pytest.raises(ServerFailed) as caught:
        asyncio.run(ask())
    assert caught.value.attempts == 1
    assert server.counts()["asked"] == {"p": 1}
