"""What this plugin declares."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MethodSpec


@hookimpl
def privkt_methods() -> Iterable[MethodSpec]:
    """The method FDKT."""
    yield MethodSpec(
        name="fdkt",
        factory="privkt_fdkt.method:FDKT",
        summary="DP synthetic texts go out, a large model's texts come back, a small model is trained on both",
        paper="Li et al. 2024, Federated Domain-Specific Knowledge Transfer on Large Language Models Using Synthetic "
        "Data, arXiv 2405.14212",
    )
