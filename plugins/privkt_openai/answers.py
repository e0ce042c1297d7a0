"""What a server's JSON must look like before it counts as an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from privkt.contracts import Generation


class Useless(Exception):
    """A reply that is no answer. The message is one of ours, never the server's, so it can be shown."""


def read_generation(reply: Any, endpoint: str, stop: Sequence[str] = ()) -> Generation:
    """One new text from a chat or text completion, cut before the first stop string.

    Edge cases: some servers keep the stop string and some ignore `stop`; either way it is cut here. Null content
    is empty text when the length or a filter ended it (a model that only thought), else useless.
    Raises: Useless.
    """
    choice = _only_choice(reply)
    finish = choice.get("finish_reason")
    if endpoint == "chat":
        message = choice.get("message")
        if not isinstance(message, dict):
            raise Useless("a choice without a message")
        text = message.get("content")
        if text is None and finish in ("length", "content_filter"):
            text = ""
    else:
        text = choice.get("text")
    if not isinstance(text, str):
        raise Useless("a choice without text")
    cut = min((at for at in map(text.find, filter(None, stop)) if at >= 0), default=None)
    if cut is not None:
        text, finish = text[:cut], "stop"
    usage = reply.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    counted = tokens if isinstance(tokens, int) and tokens >= 0 else 0
    return Generation(text=text, finish="length" if finish == "length" else "stop", tokens=counted)


def read_token_logprobs(reply: Any) -> tuple[list[str], list[float | None]]:
    """Tokens and their log-probabilities in nats, from a text completion asked with `logprobs`.

    Guarantee: equal lengths, at least one token; every number finite and <= 0; None at most in the first place
    (nothing comes before it).
    Raises: Useless, also where the server answered but left log-probabilities out in silence.
    """
    found = _only_choice(reply).get("logprobs")
    if not isinstance(found, dict):
        raise Useless("no logprobs")
    tokens, logprobs = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or not tokens:
        raise Useless("logprobs without tokens")
    if len(tokens) != len(logprobs):
        raise Useless("logprobs of another length than their tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise Useless("logprobs whose tokens are not text")
    for place, value in enumerate(logprobs):
        if value is None and place == 0:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value > 0:
            raise Useless("logprobs that are not negative numbers")
    return tokens, logprobs


def read_text(reply: Any) -> str:
    """The text of a text completion as it came, echo included. Raises: Useless."""
    text = _only_choice(reply).get("text")
    if not isinstance(text, str):
        raise Useless("a choice without text")
    return text


def read_embeddings(reply: Any, count: int) -> np.ndarray:
    """Rows of norm 1, [count, d] float32, in the order asked. Raises: Useless."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or len(data) != count or not all(isinstance(row, dict) for row in data):
        raise Useless("another number of embeddings than texts")
    order = [row.get("index", place) for place, row in enumerate(data)]
    if not all(isinstance(place, int) for place in order) or sorted(order) != list(range(count)):
        raise Useless("embeddings without a valid index")
    rows = [row.get("embedding") for row in data]
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise Useless("embeddings that are not numbers of one length") from None
    if matrix.ndim != 2 or matrix.shape[1] == 0 or not np.isfinite(matrix).all():
        raise Useless("embeddings that are not numbers of one length")
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise Useless("an embedding of zeros")
    placed = np.empty_like(matrix)
    placed[order] = matrix / norms
    return placed.astype(np.float32)


def _only_choice(reply: Any) -> dict[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Useless("no choices")
    if not isinstance(choices[0], dict):
        raise Useless("a choice that is no object")
    return choices[0]
