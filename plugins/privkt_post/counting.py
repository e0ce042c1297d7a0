"""Two numbers that the heuristic for alpha needs and votes for public sets: exact noise on counts, on the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from privkt.contracts import ClientSite, Texts
from privkt.plugins import get_manager
from privkt.privacy import (
    Budget,
    Guarantee,
    Kind,
    Neighbouring,
    Provenance,
    RefusedInput,
    Release,
    Unit,
    pure_event,
)
from privkt_post.config import POSTConfig

PURPOSE = "post: noisy counts"
PROOF = "docs/proofs/post_counts.md"
ZERO_SHOT, TUNED, VOTES, VALUE = "zero-shot correct", "tuned correct", "votes for set", "value"
_BOTH_CHANGE = (Neighbouring.REPLACE_ONE, Neighbouring.LOCAL)


@dataclass(frozen=True)
class Shares:
    """Epsilon of each of the two correct-counts, and of each set's votes; together they cost `total`.

    Guarantee: one record moves each of the pair by at most 1 (together L1 = 2), so the pair costs 2 `each`; it votes
        once, so emptying it moves one set's votes by 1 and replacing it two sets' by 1.
    """

    each: float
    vote: float
    total: float


def shares_of(config: POSTConfig, neighbouring: Neighbouring) -> Shares:
    """How the statistic's epsilon is split: in halves, where both are wanted."""
    pair = config.weighs
    whole = config.statistic.epsilon
    parts = int(pair) + int(config.votes)
    if not parts:
        return Shares(0.0, 0.0, 0.0)
    part = whole / parts
    moved = 2 if Neighbouring(neighbouring) in _BOTH_CHANGE else 1
    return Shares(part / 2 if pair else 0.0, part / moved if config.votes else 0.0, whole)


def guarantee_of(config: POSTConfig, budget: Budget) -> Guarantee:
    """What the counts promise together: the sum. A record that is replaced moves its vote from one set to another.

    Raises: RefusedInput, for another unit than records: a person with m of them moves a count by m.
    """
    need_records(budget)
    shares = shares_of(config, budget.neighbouring)
    return Guarantee(
        Kind.PURE,
        shares.total,
        unit=budget.unit,
        neighbouring=budget.neighbouring,
        proof=PROOF,
        replace_one_epsilon=2 * shares.each + 2 * shares.vote,
    )


def need_records(budget: Budget) -> None:
    """Raises RefusedInput for another unit than records."""
    if budget.unit is not Unit.RECORD:
        raise RefusedInput(
            f"budget.unit must be record for post, which counts every row by itself, got {budget.unit}; use record"
        )


def together(prompt: Guarantee, counts: Guarantee | None) -> Guarantee:
    """What is promised of anything made from a prompt and from counts beside it: the sums, each chosen adaptively.

    Edge cases: without counts the prompt's own; a prompt that promises nothing makes it nothing.
    """
    if counts is None or not prompt.is_private:
        return prompt
    replaced = (prompt.replace_one_epsilon, counts.replace_one_epsilon)
    return replace(
        prompt,
        kind=Kind.APPROXIMATE,
        epsilon=prompt.epsilon + counts.epsilon,
        delta=prompt.delta + counts.delta,
        replace_one_epsilon=None if None in replaced else sum(r for r in replaced if r is not None),
        proof=f"{prompt.proof}, {counts.proof}",
    )


def release(site: ClientSite, config: POSTConfig, pair: tuple[int, int] | None, votes: Sequence[int]) -> Release[Texts]:
    """Charges, then draws: the noisy counts as a table that may cross."""
    shares, guarantee = shares_of(config, site.budget.neighbouring), guarantee_of(config, site.budget)
    event = pure_event(guarantee.epsilon)
    details = {
        "epsilon_of_each_correct_count": shares.each,
        "epsilon_of_each_vote": shares.vote,
        "sets": len(votes),
    }
    charge = None
    if site.budget.ledger is not None:
        charge = site.budget.ledger.charge(
            event,
            guarantee,
            run_id=site.run_id,
            purpose=PURPOSE,
            fingerprint=site.data.fingerprint,
            declared={**details, "size": site.data.size},
            data_changed=site.data.data_changed,
            resume=True,
        ).id
    found: dict[str, int] = {}
    if pair is not None:
        found = {ZERO_SHOT: _noisy(pair[0], shares.each, site), TUNED: _noisy(pair[1], shares.each, site)}
    found |= {f"{VOTES} {i}": _noisy(count, shares.vote, site) for i, count in enumerate(votes)}
    return Release(
        Texts(tuple(found), None, {VALUE: tuple(map(str, found.values()))}),
        guarantee,
        event,
        Provenance("geometric", "1", site.data_set_id, details),
        charge,
    )


def counts_in(message: Texts | None) -> Mapping[str, int]:
    """The noisy counts of a message, by name."""
    if message is None or not len(message):
        return {}
    return {name: int(value) for name, value in zip(message.text, message.columns[VALUE], strict=True)}


def _noisy(count: int, epsilon: float, site: ClientSite) -> int:
    mechanism = get_manager().create(
        "mechanism", "geometric", epsilon, unit=site.budget.unit, neighbouring=site.budget.neighbouring
    )
    return int(mechanism.sample(int(count)))
