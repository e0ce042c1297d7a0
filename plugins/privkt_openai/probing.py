"""What a server really does, found with fixed public strings: many accept a field and ignore it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from privkt.contracts import Capability, ChatTurn, Prompt, Sampling
from privkt_openai.answers import (
    Useless,
    read_embeddings,
    read_generation,
    read_text,
    read_token_logprobs,
)
from privkt_openai.failures import Failure, ServerFailed, Trouble
from privkt_openai.options import Options
from privkt_openai.questions import Endpoint, question
from privkt_openai.transport import Transport

SENTENCE = "The quick brown fox jumps over the lazy dog. The"
REQUEST = "Write one sentence about the weather."
WORDS = ("river", "a small boat")
# Enough tokens that two draws at temperature 1 agree by chance only for a model that is sure of every word.
DRAWN = 24
# Statuses with which a server says that it has no such endpoint, or not for this model.
ABSENT = frozenset({400, 404, 405, 415, 422, 500, 501, 502})


@dataclass
class Findings:
    """What was found out about one server and model; a name that is missing was not asked yet.

    chat, completions: the endpoint answers usefully. logprobs: log-probabilities come back, one a token, none
    positive. echo: "0" or "1", the max_tokens with which a prompt comes back whole with its log-probabilities;
    None if neither does. seed: equal seeds give equal text and another seed another; None: every draw was equal.
    samples: temperature 1 gives different texts. stop, max_tokens: honoured; None: the answer was too short to
    tell. embeddings: rows of numbers come back. `refusal` is how an endpoint that should generate failed last.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    refusal: Failure | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """CHAT answers conversations, GENERATE continues a plain text as it stands.

        A server with chat alone still takes a string, as one user message, but what comes back does not continue it.
        """
        found = set()
        if self.facts.get("chat"):
            found.add(Capability.CHAT)
        if self.facts.get("completions"):
            found.add(Capability.GENERATE)
        if self.facts.get("echo") is not None:
            found.add(Capability.SCORE)
        if self.facts.get("embeddings"):
            found.add(Capability.EMBED)
        return frozenset(found)


_FOUND: dict[str, Findings] = {}


def findings_for(options: Options) -> Findings:
    """The one record of this process for a server, model and further fields."""
    return _FOUND.setdefault(_identity(options), Findings())


def forget_findings(options: Options) -> None:
    """Makes the next probe of this server ask again: it failed, and may come back with other settings."""
    _FOUND.pop(_identity(options), None)


def _identity(options: Options) -> str:
    parts = [options.base_url, options.model, options.endpoint, options.embedding_model, options.extra_body]
    return json.dumps(parts, sort_keys=True, default=str)


class Probe:
    """Asks a server for each fact once; what is known already is not asked again.

    Raises: ServerFailed from any question when the server is down, refuses the key, or has no capacity.
    """

    def __init__(self, transport: Transport, options: Options) -> None:
        self._transport = transport
        self._options = options
        self.found = findings_for(options)

    async def everything(self) -> Findings:
        """All facts; those that need an endpoint that does not work are False or None."""
        await self.completions()
        await self.chat()
        await self.echo()
        await self.behaviour()
        await self.embeddings()
        return self.found

    async def completions(self) -> bool:
        """Whether text completions work and return new text alone."""
        return await self._endpoint("completions", SENTENCE)

    async def chat(self) -> bool:
        """Whether chat completions work."""
        return await self._endpoint("chat", (ChatTurn("user", REQUEST),))

    async def echo(self) -> str | None:
        """The max_tokens ("0" or "1") with which the server scores a given text; None if it cannot."""
        facts = self.found.facts
        if "echo" in facts:
            return facts["echo"]
        facts["logprobs"], found = False, None
        if await self.completions():
            body = {"model": self._options.model, "prompt": SENTENCE, "max_tokens": 4, "temperature": 0.0}
            body |= {"logprobs": 1, **self._options.extra_body}
            facts["logprobs"] = await self._works("completions", body, read_token_logprobs)
            for most in ("0", "1"):
                body |= {"max_tokens": int(most), "echo": True}
                if await self._works("completions", body, _echoed):
                    found = most
                    break
        facts["echo"] = found
        return found

    async def embeddings(self) -> bool:
        """Whether /embeddings returns as many rows of numbers as texts."""
        facts = self.found.facts
        if "embeddings" not in facts:
            body = {"model": self._options.embedding_model or self._options.model, "input": list(WORDS)}
            facts["embeddings"] = await self._works(
                "embeddings", body, lambda reply: read_embeddings(reply, len(WORDS))
            )
        return facts["embeddings"]

    async def behaviour(self) -> None:
        """Finds out seed, samples, stop and max_tokens on the endpoint that strings go to."""
        facts = self.found.facts
        if "max_tokens" in facts:
            return
        facts |= dict.fromkeys(("seed", "samples", "stop", "max_tokens"))
        endpoint: Endpoint = "completions" if await self.completions() else "chat"
        prompt = SENTENCE if endpoint == "completions" else REQUEST
        if not facts["completions"] and not await self.chat():
            return
        first = await self._text(endpoint, prompt, DRAWN, 1.0, seed=7)
        again = await self._text(endpoint, prompt, DRAWN, 1.0, seed=7)
        other = await self._text(endpoint, prompt, DRAWN, 1.0, seed=8)
        facts["samples"] = len({first, again, other}) > 1
        facts["seed"] = first == again if facts["samples"] else None
        greedy = await self._text(endpoint, prompt, DRAWN, 0.0)
        inner = _inner(greedy)
        if inner:
            stopped = await self._text(endpoint, prompt, DRAWN, 0.0, stop=inner)
            # Servers stop at the token in which the string ends and may keep it; going on to the end ignores it.
            facts["stop"] = len(stopped) < len(greedy)
        short = await self._text(endpoint, prompt, 1, 0.0)
        facts["max_tokens"] = len(short) < len(greedy) if len(greedy) > 1 else None

    async def _endpoint(self, endpoint: Endpoint, prompt: Prompt) -> bool:
        facts = self.found.facts
        if endpoint not in facts:
            if self._options.endpoint not in ("auto", endpoint):
                facts[endpoint] = False
                return False
            asked = question(prompt, Sampling(max_new_tokens=8, temperature=0.0), self._options, endpoint)

            def read(reply: Any) -> None:
                text = read_generation(reply, endpoint).text
                if isinstance(prompt, str) and text.startswith(prompt):
                    raise Useless("the prompt came back without being asked for")

            facts[endpoint] = await self._works(endpoint, asked.request(), read)
        return facts[endpoint]

    async def _works(self, path: str, body: dict[str, Any], read: Any) -> bool:
        try:
            await self._transport.ask(path, body, read, patience=2)
        except ServerFailed as failed:
            failure = failed.failure
            # What an account may not use (401, 403) is absent too, as soon as something else was answered.
            refused = self.found.capabilities and failure.status in (401, 403)
            if failure.trouble is Trouble.USELESS or failure.status in ABSENT or refused:
                if path in ("chat", "completions") and not self.found.capabilities:
                    self.found.refusal = failure
                return False
            raise
        return True

    async def _text(
        self, endpoint: Endpoint, prompt: str, most: int, temperature: float, *, seed: int | None = None, stop: str = ""
    ) -> str:
        sampling = Sampling(max_new_tokens=most, temperature=temperature)
        body = dict(question(prompt, sampling, self._options, endpoint).body)
        # The bare fields, as here the server itself is in question: no seed drawn from a key, no cutting after it.
        if seed is not None:
            body["seed"] = seed
        if stop:
            body["stop"] = [stop]
        generation = await self._transport.ask(endpoint, body, lambda reply: read_generation(reply, endpoint))
        return generation.text


def _inner(text: str) -> str:
    """Two plain characters from the third quarter of a text: not in its last token, no broken character."""
    pairs = (text[at : at + 2] for at in range(len(text) // 2, 3 * len(text) // 4))
    return next((pair for pair in pairs if pair.isascii() and pair.isalnum() and len(pair) == 2), "")


def _echoed(reply: Any) -> None:
    tokens, logprobs = read_token_logprobs(reply)
    if not read_text(reply).startswith(SENTENCE):
        raise Useless("the prompt did not come back")
    known = [value for value in logprobs if value is not None]
    # No model is sure of every word of a sentence: zeros throughout are a placeholder.
    if len(tokens) < 2 or not any(value < 0 for value in known):
        raise Useless("logprobs that are no numbers of a model")
