"""What this plugin declares."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MethodSpec


@hookimpl
def privkt_methods() -> Iterable[MethodSpec]:
    """The method FedCoT."""
    yield MethodSpec(
        name="fedcot",
        factory="privkt_fedcot.method:FedCoT",
        summary="perturbed questions go out, a large model's rationales come back, a small model learns from both",
        paper="Fan et al. 2024, FedCoT: Federated Chain-of-Thought Distillation for Large Language Models, "
        "arXiv 2406.12403",
    )
