"""What this plugin declares."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MethodSpec


@hookimpl
def privkt_methods() -> Iterable[MethodSpec]:
    """The method KnowledgeSG."""
    yield MethodSpec(
        name="knowledgesg",
        factory="privkt_knowledgesg.method:KnowledgeSG",
        summary="a private adapter goes out, writes instructions at the server, a professional model answers them, and "
        "an adapter taught by its answers comes back",
        paper="Wang et al. 2024, KnowledgeSG: Privacy-Preserving Synthetic Text Generation with Knowledge Distillation "
        "from Server, arXiv 2410.05725",
    )
