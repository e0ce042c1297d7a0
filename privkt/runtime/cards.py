"""Privacy cards: what a receiver may know of a charge, as JSON and as a page. Nothing private is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privkt.privacy import Release
from privkt.privacy.events import leaves, pure_epsilon_of
from privkt.privacy.guarantee import Guarantee, Neighbouring

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Crossing:
    """One line of the manifest: what crossed. Number, order and length are public by design."""

    client: str
    step: str
    scope: str
    message: str
    rows: int
    size_bytes: int
    sha256: str
    file: str
    guarantee: dict[str, Any]
    data_set_id: str

    def __str__(self) -> str:
        return f"{self.client} {self.step} ({self.scope}): {self.message}, {self.rows} rows, {self.size_bytes} bytes"


def card(release: Release[Any], crossed: Sequence[Crossing], *, size: int) -> dict[str, Any]:
    """The card of a release's charge, as JSON values.

    `size` is the declared N. What was really done (`taken`), metrics, fingerprints and details of the mechanism's
    provenance are left out: they may depend on data.
    """
    guarantee = release.guarantee
    return {
        "data_set_id": release.provenance.data_set_id,
        "statement": str(guarantee),
        "guarantee": guarantee.to_json(),
        "replace_one_epsilon": replace_one_epsilon(guarantee),
        "unit": str(guarantee.unit),
        "neighbouring": str(guarantee.neighbouring),
        "size": size,
        "conditional_on": list(guarantee.conditional_on),
        "mechanism": {"name": release.provenance.mechanism, "version": release.provenance.version},
        "planned": planned(release.event, guarantee),
        "crossed": [
            {
                "step": c.step,
                "scope": c.scope,
                "message": c.message,
                "rows": c.rows,
                "size_bytes": c.size_bytes,
                "sha256": c.sha256,
            }
            for c in crossed
        ],
        "public_by_design": "the number, order and length of what crossed, the labels, the declared N",
        "computational": "noise comes from ChaCha20, so the guarantee holds against computationally bounded readers",
    }


def replace_one_epsilon(guarantee: Guarantee) -> float | None:
    """What replacing one unit costs; a promise for any two inputs, or for replacing, is that already."""
    already = guarantee.is_private and guarantee.neighbouring in (Neighbouring.LOCAL, Neighbouring.REPLACE_ONE)
    return guarantee.epsilon if already else guarantee.replace_one_epsilon


def planned(event: DpEvent, guarantee: Guarantee) -> list[dict[str, Any]]:
    """The parameters fixed before data was read, one entry an elementary mechanism."""
    import dp_accounting as dpa

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    found: list[dict[str, Any]] = []
    for leaf, count in leaves(event).items():
        if isinstance(leaf, dpa.PoissonSampledDpEvent):
            entry = {
                "mechanism": "Poisson-sampled Gaussian",
                "noise_multiplier": leaf.event.noise_multiplier,
                "sampling_rate": leaf.sampling_probability,
            }
        elif isinstance(leaf, dpa.TruncatedSubsampledGaussianDpEvent):
            entry = {
                "mechanism": "truncated-Poisson-sampled Gaussian",
                "noise_multiplier": leaf.noise_multiplier,
                "sampling_rate": leaf.sampling_probability,
                "cap": leaf.truncated_batch_size,
            }
        elif isinstance(leaf, BallsInBinsGaussianDpEvent):
            entry = {
                "mechanism": "Gaussian with balls in bins, steps counted in epochs",
                "noise_multiplier": leaf.noise_multiplier,
                "sampling_rate": 1 / leaf.bins,
                "bins": leaf.bins,
            }
        elif isinstance(leaf, dpa.GaussianDpEvent):
            entry = {"mechanism": "Gaussian", "noise_multiplier": leaf.noise_multiplier, "sampling_rate": 1.0}
        elif isinstance(leaf, dpa.ZCDpEvent):
            entry = {"mechanism": "zCDP", "rho": leaf.rho}
        elif isinstance(leaf, dpa.NonPrivateDpEvent):
            entry = {"mechanism": "none"}
        else:
            entry = {"mechanism": "pure", "epsilon_of_each": pure_epsilon_of(leaf.noise_parameter)}
        found.append(
            {
                **entry,
                "steps": count,
                "delta": guarantee.delta,
                "epsilon": "inf" if not guarantee.is_private else guarantee.epsilon,
            }
        )
    return found


def markdown(values: dict[str, Any]) -> str:
    """The card as a page."""
    lines = [
        "# Privacy card",
        "",
        f"Data set `{values['data_set_id']}` (a random id).",
        "",
        f"**{values['statement']}**",
        "",
        f"- unit: {values['unit']}; relation: {values['neighbouring']}; N = {values['size']}, declared and public",
        f"- mechanism: {values['mechanism']['name']}, version {values['mechanism']['version']}",
        f"- replace-one epsilon: {values['replace_one_epsilon'] or 'not stated'}",
        *(f"- holds if: {condition}" for condition in values["conditional_on"]),
        f"- {values['computational']}",
        f"- public by design: {values['public_by_design']}",
        "",
        "## Planned",
        "",
        *(f"- {', '.join(f'{key} = {value}' for key, value in entry.items())}" for entry in values["planned"]),
        "",
        "## What crossed",
        "",
        "| step | scope | message | rows | bytes | sha256 |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {c['step']} | {c['scope']} | {c['message']} | {c['rows']} | {c['size_bytes']} | {c['sha256']} |"
            for c in values["crossed"]
        ),
        "",
    ]
    return "\n".join(lines)
