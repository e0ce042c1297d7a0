"""What is asked of a server: one request, its key in the cache, and the seed drawn from that key."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from privkt.contracts import Capability, CapabilityMissing, ChatTurn, Prompt, Sampling
from privkt_openai.options import Options

Endpoint = Literal["chat", "completions"]
# Part of every key: a change of what a key covers makes old answers unfindable instead of wrong.
KEY_VERSION = 1
# Hosted servers refuse a request with more; the rest is cut from the answer here.
STOPS_SENT = 4


@dataclass(frozen=True)
class Question:
    """One request to one endpoint. `body` is all of it but the seed.

    `repetition` counts equal prompts before it in the same call, so that each gets an answer of its own.
    """

    endpoint: Endpoint
    body: dict[str, Any]
    seed: int | None
    repetition: int
    stop: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """SHA-256 over model, endpoint, prompt, sampling, further fields, seed and repetition; it shows no text."""
        whole = [KEY_VERSION, self.endpoint, self.body, list(self.stop), self.seed, self.repetition]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def request(self) -> dict[str, Any]:
        """The body as sent.

        The seed is drawn from the key: with one seed for all, a server that honours seeds would answer a
        repeated prompt with the same words and draw correlated answers to similar prompts.
        """
        if self.seed is None:
            return self.body
        digest = hashlib.sha256(f"seed:{self.key}".encode()).digest()
        return {**self.body, "seed": int.from_bytes(digest[:4], "big") >> 1}


def repetitions(prompts: Sequence[Prompt]) -> list[int]:
    """For each prompt, how many equal ones came before it."""
    seen: Counter[Prompt] = Counter()
    counts = []
    for prompt in prompts:
        counts.append(seen[prompt])
        seen[prompt] += 1
    return counts


def endpoints_for(prompt: Prompt, options: Options) -> tuple[Endpoint, ...]:
    """Where a prompt may go, in order of preference: a conversation to chat, a string to completions if they work."""
    if options.endpoint == "auto":
        return ("completions", "chat") if isinstance(prompt, str) else ("chat",)
    if options.endpoint == "completions" and not isinstance(prompt, str):
        raise CapabilityMissing(
            f"backend 'openai': a conversation needs {Capability.CHAT}, but `endpoint: completions` rules it out "
            "(the server's chat template is applied by its chat endpoint alone); set `endpoint: auto` or `chat`"
        )
    return (options.endpoint,)


def question(prompt: Prompt, sampling: Sampling, options: Options, endpoint: Endpoint, repetition: int = 0) -> Question:
    """The request that asks for one answer. A string goes to chat as one user message."""
    body: dict[str, Any] = {"model": options.model}
    if endpoint == "completions":
        body["prompt"] = prompt
        body["max_tokens"] = sampling.max_new_tokens
    else:
        turns = (ChatTurn("user", prompt),) if isinstance(prompt, str) else prompt
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns]
        body[options.max_tokens_field] = sampling.max_new_tokens
    # Sent even at their neutral values: servers fill what is missing from the model's own defaults.
    body["temperature"] = sampling.temperature
    body["top_p"] = sampling.top_p
    # These two are no part of the interface: strict servers refuse them, so they go only when asked for.
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    if sampling.stop:
        body["stop"] = list(sampling.stop[:STOPS_SENT])
    body.update(options.extra_body)
    seed = options.seed if sampling.seed is None else sampling.seed
    return Question(endpoint, body, seed, repetition, sampling.stop)
