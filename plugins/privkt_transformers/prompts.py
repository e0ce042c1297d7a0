"""Prompts as token ids: plain text, conversations through the chat template, and what stands in where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from privkt.contracts import BackendError, ChatTurn, Prompt
from privkt_transformers.loading import Loaded


def encode(loaded: Loaded, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    """Ids of each text. `special` adds what the tokenizer puts around a text (a continuation has none)."""
    if not texts:
        return []
    encoded = loaded.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def encode_prompts(loaded: Loaded, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Ids of each prompt; never empty, since a model needs something to continue."""
    plain = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str)]
    rows: dict[int, list[int]] = dict(
        zip(plain, encode(loaded, [str(prompts[i]) for i in plain], special=True), strict=True)
    )
    talks = [i for i in range(len(prompts)) if i not in rows]
    laid_out = [conversation(loaded.tokenizer, prompts[i]) for i in talks]  # type: ignore[arg-type]
    templated = bool(getattr(loaded.tokenizer, "chat_template", None))
    rows.update(zip(talks, encode(loaded, laid_out, special=not templated), strict=True))
    return [rows[i] or [loaded.start] for i in range(len(prompts))]


def conversation(tokenizer: Any, turns: Sequence[ChatTurn]) -> str:
    """A conversation as the text that the model continues as the assistant.

    Edge cases: without a chat template, turns become paragraphs "Role: content", and the last line is "Assistant:".
    """
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    if getattr(tokenizer, "chat_template", None):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    lines = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
    return "\n\n".join([*lines, "Assistant:"])


def refuse_too_long(loaded: Loaded, lengths: Sequence[int], new_tokens: int, what: str) -> None:
    """Raises BackendError for the first row that does not fit the model's context, by its index."""
    room = loaded.context - (0 if loaded.prefix is None else loaded.prefix.shape[0])
    for i, length in enumerate(lengths):
        if length + new_tokens > room:
            raise BackendError(
                f"{what} {i}: {length} tokens and {new_tokens} new ones must fit the model's context of {room}; "
                "shorten it or lower max_new_tokens"
            )
