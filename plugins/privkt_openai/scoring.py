"""Log-likelihoods from a server that echoes a prompt with its log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from privkt.contracts import Score
from privkt_openai.answers import Useless, read_text, read_token_logprobs
from privkt_openai.options import Options
from privkt_openai.questions import Question


def score_question(prompt: str, continuation: str, options: Options, max_tokens: str) -> Question:
    """The request that echoes both texts. It draws nothing, so equal pairs share one answer."""
    body = echo_body(prompt + continuation, options, max_tokens)
    # The boundary belongs to the key, though the server needs none.
    return Question("completions", body, None, 0, (f"score:{len(prompt)}",))


def echo_body(text: str, options: Options, max_tokens: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": options.model, "prompt": text, "max_tokens": int(max_tokens)}
    return body | {"temperature": 0.0, "logprobs": 1, "echo": True, **options.extra_body}


def read_score(reply: Any, prompt: str, continuation: str) -> Score | None:
    """The sum over the tokens that reach into the continuation, or None where the tokens do not spell the text.

    Units: nats. Edge cases: a token across the boundary counts as the continuation's; a first token without a
    number (nothing came before it) is not counted; a begin token that the echo leaves out is skipped; text
    generated after the echo is not counted.
    Raises: Useless.
    """
    tokens, logprobs = read_token_logprobs(reply)
    whole = prompt + continuation
    if not read_text(reply).startswith(whole):
        raise Useless("the prompt did not come back")
    for skipped in (0, 1):
        spelled = "".join(tokens[skipped:])
        if spelled.startswith(whole):
            ends = list(accumulate(map(len, tokens[skipped:])))
            places = range(skipped, len(tokens))
            inside = [
                logprobs[place]
                for place, end, token in zip(places, ends, tokens[skipped:], strict=True)
                if end > len(prompt) and end - len(token) < len(whole)
            ]
            return _total(inside)
    return None


def read_score_by_count(reply: Any, prompt_tokens: int, generated: int) -> Score:
    """The sum over the tokens behind the first `prompt_tokens`, for tokens that split characters.

    Raises: Useless.
    """
    tokens, logprobs = read_token_logprobs(reply)
    return _total(logprobs[prompt_tokens : len(tokens) - generated])


def _total(inside: Sequence[float | None]) -> Score:
    known = [value for value in inside if value is not None]
    return Score(logprob=float(sum(known)), tokens=len(known))
