"""What this plugin declares; nothing heavy is imported here."""

from __future__ import annotations

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import MechanismSpec


def _tokens(name: str, attribute: str, guarantee: str, summary: str) -> MechanismSpec:
    return MechanismSpec(
        name=name,
        factory=f"privkt_mechanisms.{name.removesuffix('_plus')}:{attribute}",
        summary=summary,
        guarantee=guarantee,
        unit="token",
        neighbouring="local",
        proof="" if guarantee == "none" else "docs/proofs/tokens.md",
    )


TOKENS = (
    _tokens("exponential", "Exponential", "pure", "A word of the vocabulary, likelier the nearer it is."),
    _tokens("permute_and_flip", "PermuteAndFlip", "pure", "Words in random order until one's coin says yes."),
    _tokens("soft_radius", "SoftRadius", "pure", "The exponential mechanism within a random radius, far words too."),
    _tokens("tem", "TEM", "metric", "A word by its distance, all alike beyond a radius."),
    _tokens("santext", "SanText", "metric", "A word by its distance."),
    _tokens("santext_plus", "SanTextPlus", "none", "SANTEXT that often leaves ordinary words as they are."),
    _tokens("custext", "CusText", "none", "A word of the private word's own small set, which is told in clear."),
    _tokens("custext_plus", "CusTextPlus", "none", "CUSTEXT that leaves ordinary words as they are."),
    _tokens("noisy_neighbour", "NoisyNeighbour", "none", "The nearest word to a noisy vector, in floating point."),
    _tokens("rantext", "RanText", "none", "A word of a list that depends on the private word, as published."),
    _tokens("inferdpt_kit", "InferDPTKit", "none", "RANTEXT by cosines, unknown words in clear, as public kits do."),
)


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
        MechanismSpec(
            name="laplace",
            factory="privkt_mechanisms.laplace:Laplace",
            summary="A clipped vector of numbers with discrete Laplace noise.",
            guarantee="pure",
            unit="record",
            neighbouring="zero-out",
            proof="docs/proofs/vectors.md",
        ),
        MechanismSpec(
            name="gaussian",
            factory="privkt_mechanisms.gaussian:Gaussian",
            summary="A clipped vector of numbers with discrete Gaussian noise.",
            guarantee="approximate",
            unit="record",
            neighbouring="zero-out",
            proof="docs/proofs/vectors.md",
        ),
        *TOKENS,
    )
