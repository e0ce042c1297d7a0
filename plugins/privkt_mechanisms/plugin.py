"""What this plugin declares; nothing heavy is imported here."""

from __future__ import annotations

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MechanismSpec


@hookimpl
def privkt_mechanisms() -> tuple[MechanismSpec, ...]:
    """Single values exactly: integers and fractions. Tokens by integer weights; what is unproven says none."""
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
        _tokens("exponential", "Exponential", "A word of the vocabulary, likelier the nearer it is.", "pure"),
    )


def _tokens(name: str, attribute: str, summary: str, guarantee: str) -> MechanismSpec:
    return MechanismSpec(
        name=name,
        factory=f"privkt_mechanisms.{name}:{attribute}",
        summary=summary,
        guarantee=guarantee,
        unit="token",
        neighbouring="local",
        proof="" if guarantee == "none" else "docs/proofs/tokens.md",
    )
