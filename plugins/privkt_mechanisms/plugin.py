"""What this plugin declares; nothing heavy is imported here."""

from __future__ import annotations

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MechanismSpec


@hookimpl
def privkt_mechanisms() -> tuple[MechanismSpec, ...]:
    """Two mechanisms whose arithmetic is exact: integers and fractions, no floating point on the private path."""
    return (
        MechanismSpec(
            name="randomised_response",
            factory="privkt_mechanisms.randomised_response:RandomisedResponse",
            summary="One label out of a public set, told truly with a known probability.",
            guarantee="pure",
            unit="record",
            neighbouring="local",
            proof="docs/proofs/randomised_response.md",
        ),
        MechanismSpec(
            name="geometric",
            factory="privkt_mechanisms.geometric:Geometric",
            summary="An integer count with two-sided geometric (discrete Laplace) noise.",
            guarantee="pure",
            unit="record",
            neighbouring="zero-out",
            proof="docs/proofs/geometric.md",
        ),
    )
