"""The `transformers` backend's entry in the plugin list. No torch here."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import BackendSpec


@hookimpl
def privkt_backends() -> Iterable[BackendSpec]:
    """Models of the transformers library, in this process."""
    return (
        BackendSpec(
            name="transformers",
            factory="privkt_transformers.backend:TransformersBackend",
            summary="Hugging Face models in this process: generate, score, embed, train, train privately, classify",
            capabilities=(
                "generate",
                "chat",
                "score",
                "embed",
                "train",
                "train-private",
                "classify",
                "adapters",
            ),
            remote=False,
        ),
    )
