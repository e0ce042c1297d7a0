"""What this plugin declares."""

from __future__ import annotations

from collections.abc import Iterable

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MethodSpec


@hookimpl
def privkt_methods() -> Iterable[MethodSpec]:
    """The method DP generation with control codes."""
    yield MethodSpec(
        name="dp_synth",
        factory="privkt_dp_synth.method:DPSynth",
        summary="a generator is tuned privately with control codes, and labelled synthetic texts are published",
        paper="Yue et al. 2023, Synthetic Text Generation with Differential Privacy: A Simple and Practical Recipe",
    )
