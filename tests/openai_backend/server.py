"""A small real server over a causal model: chat, completions with echo and logprobs, embeddings.

Started by path with a model folder; prints its port once the model is loaded. It ends when its stdin closes.
`GET /v1/counts` gives every body that was posted.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer


class Completion(BaseModel):
    """The fields of the interface that this server knows; others are ignored, as servers do.

    `refuse_zero` makes it refuse max_tokens 0, `opaque_tokens` makes it name tokens by numbers: some servers do.
    """

    model: str
    prompt: str = ""
    messages: list[dict[str, str]] = []
    max_tokens: int = 16
    temperature: float = 1.0
    stop: list[str] = []
    seed: int | None = None
    echo: bool = False
    logprobs: int | None = None
    refuse_zero: bool = False
    opaque_tokens: bool = False


class Embedding(BaseModel):
    """A request to /embeddings."""

    model: str
    input: list[str]


class Served:
    """The model, used by one request at a time."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.lock = threading.Lock()

    def draw(self, prompt: list[int], asked: Completion) -> list[int]:
        """New tokens after `prompt`, up to the end token, a stop string, or max_tokens."""
        generator = torch.Generator()
        if asked.seed is None:
            generator.seed()
        else:
            generator.manual_seed(asked.seed)
        new: list[int] = []
        while len(new) < asked.max_tokens:
            logits = self.model(torch.tensor([prompt + new])).logits[0, -1]
            if asked.temperature == 0:
                token = int(logits.argmax())
            else:
                weights = torch.softmax(logits / asked.temperature, dim=-1)
                token = int(torch.multinomial(weights, 1, generator=generator))
            if token == self.tokenizer.eos_token_id:
                break
            new.append(token)
            if any(stop in self.tokenizer.decode(new) for stop in asked.stop):
                break
        return new

    def logprobs(self, ids: list[int], first: int) -> dict[str, list]:
        """Tokens from place `first` on and what the model gave each; nothing precedes the very first."""
        table = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), dim=-1)
        values = [None if place == 0 else float(table[place - 1, ids[place]]) for place in range(first, len(ids))]
        return {"tokens": [self.tokenizer.decode([i]) for i in ids[first:]], "token_logprobs": values}


def build(folder: str) -> FastAPI:
    """The application over the model in `folder`."""
    served, app, bodies = Served(folder), FastAPI(), []

    @app.middleware("http")
    async def keep(request: Request, answer: Any) -> Any:
        if request.method == "POST":
            bodies.append(await request.json())
        return await answer(request)

    @app.get("/v1/counts")
    def counts() -> dict:
        return {"bodies": bodies}

    @app.post("/v1/completions")
    def completions(asked: Completion) -> dict:
        if asked.refuse_zero and asked.max_tokens == 0:
            raise HTTPException(400, "max_tokens must be at least 1")
        with served.lock, torch.inference_mode():
            prompt = served.tokenizer(asked.prompt)["input_ids"]
            new = served.draw(prompt, asked)
            ids, first = prompt + new, 0 if asked.echo else len(prompt)
            text = (asked.prompt if asked.echo else "") + served.tokenizer.decode(new)
            choice = {"index": 0, "text": text, "finish_reason": _finish(new, asked)}
            if asked.logprobs is not None:
                choice["logprobs"] = served.logprobs(ids, first)
                if asked.opaque_tokens:
                    choice["logprobs"]["tokens"] = [f"token_id:{i}" for i in ids[first:]]
        return {"object": "text_completion", "choices": [choice], "usage": {"completion_tokens": len(new)}}

    @app.post("/v1/chat/completions")
    def chat(asked: Completion) -> dict:
        with served.lock, torch.inference_mode():
            text = served.tokenizer.apply_chat_template(asked.messages, tokenize=False, add_generation_prompt=True)
            new = served.draw(served.tokenizer(text)["input_ids"], asked)
            message = {"role": "assistant", "content": served.tokenizer.decode(new)}
        choice = {"index": 0, "message": message, "finish_reason": _finish(new, asked)}
        return {"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": len(new)}}

    @app.post("/v1/embeddings")
    def embeddings(asked: Embedding) -> dict:
        rows = []
        with served.lock, torch.inference_mode():
            for index, text in enumerate(asked.input):
                ids = torch.tensor([served.tokenizer(text)["input_ids"]])
                states = served.model(ids, output_hidden_states=True).hidden_states[-1]
                rows.append({"index": index, "embedding": states[0].mean(dim=0).tolist()})
        # Out of order on purpose: the index says where each belongs.
        return {"object": "list", "data": rows[::-1]}

    return app


def _finish(new: list[int], asked: Completion) -> str:
    return "length" if len(new) >= asked.max_tokens else "stop"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    app = build(flags.folder)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
