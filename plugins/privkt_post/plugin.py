"""What this plugin declares."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MethodSpec


@hookimpl
def privkt_methods() -> Iterable[MethodSpec]:
    """The method POST."""
    yield MethodSpec(
        name="post",
        factory="privkt_post.method:POST",
        summary="A soft prompt tuned on a small distilled model goes out, and is moved to the large model",
        paper="Wang et al. 2025, Efficient and Privacy-Preserving Soft Prompt Transfer for LLMs, arXiv 2506.16196",
    )
