"""What this plugin declares; nothing heavy is imported here."""

from __future__ import annotations

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import BackendSpec


@hookimpl
def privkt_backends() -> tuple[BackendSpec, ...]:
    """One backend, for every compatible server."""
    return (
        BackendSpec(
            name="openai",
            factory="privkt_openai.backend:OpenAIBackend",
            summary="Any OpenAI-compatible server: vLLM, llama.cpp, Ollama, transformers serve, a hosted API.",
            capabilities=("generate", "chat", "score", "embed"),
            remote=True,
        ),
    )
