"""What a training promises and pays: its guarantee, one charge, one release."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.checkpoint import Identity
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.plan import Plan, values_released
from privkt.dpsgd.slacks import sampler_slack, variation_per_coordinate
from privkt.privacy import Budget, ChargeConflict, Guarantee


class Account:
    """One training's side of the ledger.

    Guarantee: the whole plan is charged once, before anything is computed that can end in the release; one charge pays
        for one set of weights.
    Edge cases: without a ledger nothing is charged, and the release has no charge.
    Raises: RefusedTraining, for keys or kernels that are not private together with a ledger.
    """

    def __init__(
        self, budget: Budget, plan: Plan, identity: Identity, *, data_changed: bool, public_keys: bool
    ) -> None:
        self._budget, self._plan, self._identity, self._data_changed = budget, plan, identity, data_changed
        self.charge_id: str | None = None
        self.guarantee = self._promise(public_keys)

    def _promise(self, public_keys: bool) -> Guarantee:
        reason = ""
        if public_keys:
            reason = "trained with keys that were given, so that it can be repeated"
        elif not kernels.is_private():
            reason = "trained with PRIVKT_KERNELS=reference"
        if not reason:
            return self._plan.guarantee()
        if self._budget.ledger is not None:
            raise RefusedTraining(
                f"PrivateTraining: a budget with a ledger must be spent on a private run, got one {reason}; leave out "
                "test_keys and PRIVKT_KERNELS, or the ledger"
            )
        return Guarantee.none(reason, unit=self._budget.unit, neighbouring=self._budget.neighbouring)

    def charge(self, unfinished: bool) -> str | None:
        """Charges the plan, once; the charge's id, None without a ledger.

        A run that died before its release was made goes on under the charge it has; one that made its release can only
        make the same one again, from its last checkpoint: `unfinished` says that steps were missing at the start.
        """
        ledger = self._budget.ledger
        if ledger is None or self.charge_id is not None:
            return self.charge_id
        # What the sampler really takes: ten times the reserved share would fill all that a zcdp or rdp ledger keeps.
        values = values_released(self._plan.coordinates, self._plan.clipping) * self._plan.steps
        slack = sampler_slack(variation_per_coordinate(self._plan.noise) * values, self._plan.epsilon, self._plan.noise)
        charge = ledger.charge(
            self._plan.event(),
            self.guarantee,
            run_id=self._identity.run_id,
            purpose=self._identity.purpose,
            fingerprint=self._identity.fingerprint,
            declared=self._plan.to_json(),
            data_changed=self._data_changed,
            resume=True,
            slack_delta=min(self._plan.slack_delta, slack),
        )
        if ledger.status(charge.id).taken is not None and unfinished:
            raise RefusedTraining(
                "PrivateTraining: one charge pays for one release, and this run has made its own; use the stored "
                "release, or start another run, which is a new spend"
            )
        self.charge_id = charge.id
        return charge.id

    def claim(self, digest: str) -> None:
        """Makes these weights the charge's only ones: two copies of a run, resumed side by side, end in one release."""
        ledger = self._budget.ledger
        if ledger is None or self.charge_id is None:
            return
        try:
            ledger.stored(self.charge_id, digest, name="weights")
        except ChargeConflict:
            raise RefusedTraining(
                "PrivateTraining.finish: one charge pays for one release, and another copy of this run has made it; "
                "use that one, or start another run, which is a new spend"
            ) from None

    def taken(self, steps: int) -> None:
        """Notes the steps really done, once the release exists."""
        if self._budget.ledger is not None and self.charge_id is not None:
            self._budget.ledger.taken(self.charge_id, steps)


def weights_digest(named: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names and exact values."""
    digest = hashlib.sha256()
    for name, parameter in named:
        digest.update(name.encode() + b"\0")
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
