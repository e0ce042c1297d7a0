"""Server processes for these tests: started by path, waited for with a bound, killed at the end."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from privkt_openai import probing
from privkt_openai.backend import OpenAIBackend

from privkt.contracts import BackendContext

HERE = Path(__file__).parent
STARTUP_SECONDS = 120.0
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog. The river was cold and a small boat went by.",
    "Write one sentence about the weather. It rains in the morning and the sun shines at noon.",
    "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ ,.;:!?'\"()-\n",
]


@dataclass
class Server:
    """A running server process and where it listens."""

    process: subprocess.Popen[bytes]
    base_url: str

    def counts(self) -> dict[str, Any]:
        """What a faulty server saw."""
        return json.loads(fetch(self.base_url + "/counts"))


def fetch(url: str, seconds: float = 10.0) -> bytes:
    """The body of a loopback URL, never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=seconds) as reply:
        return reply.read()


def start(*command: str) -> Server:
    """Starts a server that prints its port, and waits for it."""
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet_environment()
    )
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        port = int(lines.get(timeout=STARTUP_SECONDS))
    except (queue.Empty, ValueError):
        stop(process)
        raise RuntimeError(f"{Path(command[0]).name} did not start (exit {process.returncode})") from None
    return Server(process, f"http://127.0.0.1:{port}/v1")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kills a server and waits until it is gone."""
    process.kill()
    process.wait(timeout=30)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@pytest.fixture
def faulty() -> Iterator[Callable[..., Server]]:
    """Starts a server that fails as its flags say: `faulty("--fault", "429", "--times", "2")`."""
    running: list[Server] = []

    def begin(*flags: str) -> Server:
        running.append(start(str(HERE / "faulty_server.py"), *flags))
        return running[-1]

    yield begin
    for server in running:
        stop(server.process)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports may come again with another server behind; keys of the developer stay out of the tests."""
    monkeypatch.setattr(probing, "_FOUND", {})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def backend() -> Callable[..., OpenAIBackend]:
    """Makes a backend for a server, with short pauses."""

    def make(server: Server | str, cache: Path | None = None, **options: Any) -> OpenAIBackend:
        url = server if isinstance(server, str) else server.base_url
        settings = {"base_url": url, "model": "m", "backoff": 0.01, "max_retries": 3, "timeout": 20, **options}
        return OpenAIBackend(settings, BackendContext(role="llm", cache=cache))

    return make


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    inner.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    model = LlamaForCausalLM(config)
    # Without this a server draws greedily whatever temperature it is asked for.
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def full_server(model_folder: Path) -> Iterator[Server]:
    """The server that has it all, over the tiny model."""
    with full_server_over(model_folder) as server:
        yield server


@pytest.fixture(scope="session")
def transformers_server(model_folder: Path) -> Iterator[Server]:
    """`transformers serve` over the tiny model: it takes logprobs and echo and leaves them out in silence."""
    with transformers_serve_over(model_folder) as server:
        yield server


@pytest.fixture(scope="module")
def smollm2_servers(smollm2: str) -> Iterator[dict[str, Server | Path]]:
    """Both servers over a real model, and its folder."""
    folder = Path(smollm2)
    with full_server_over(folder) as full, transformers_serve_over(folder) as silent:
        yield {"full": full, "silent": silent, "folder": folder}


@contextmanager
def full_server_over(folder: Path) -> Iterator[Server]:
    """`server.py` over a model, until the block ends."""
    server = start(str(HERE / "server.py"), str(folder))
    try:
        yield server
    finally:
        stop(server.process)


@contextmanager
def transformers_serve_over(folder: Path) -> Iterator[Server]:
    """`transformers serve` over a model, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sysconfig.get_path("scripts")) / "transformers"
    flags = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "error"]
    process = subprocess.Popen(
        [sys.executable, str(program), "serve", *flags, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=quiet_environment(),
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield Server(process, f"http://127.0.0.1:{port}/v1")
    finally:
        stop(process)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Polls until the server answers, dies, or the bound has passed."""
    end = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            fetch(url, 2.0)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start (exit {process.poll()})")


def quiet_environment() -> dict[str, str]:
    """One thread a process, and no hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
