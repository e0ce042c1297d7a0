"""The release: every part of every question, token by token, at a price that is fixed before any text is read."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from privkt.contracts import ClientSite, Texts, TokenMechanism
from privkt.plugins import get_manager
from privkt.privacy import (
    Budget,
    Certificate,
    DocumentCost,
    Guarantee,
    Neighbouring,
    Provenance,
    RefusedInput,
    Release,
    Unit,
    document_cost,
    none_event,
)
from privkt.privacy.guarantee import rounded_up
from privkt.runtime.vocabularies import read_vocabulary
from privkt.synthesis.token_claims import check_claims, make_token_mechanism, need_draws_tokens
from privkt_fedcot.config import PerturbationConfig, VocabularyConfig
from privkt_fedcot.tasks import Part, Question, Task

if TYPE_CHECKING:
    from privkt.synthesis.vocabulary import Vocabulary

PURPOSE = "fedcot: perturb the questions"
MECHANISM = "fedcot.perturbation.mechanism"
PROOF = "docs/proofs/tokens.md"
CHOICES, CONTEXT = "choices", "context"
_STATED_FOR = (Neighbouring.LOCAL, Neighbouring.ZERO_OUT, Neighbouring.REPLACE_ONE)
_UNITS = (Unit.RECORD, Unit.DOCUMENT)
_STEPS = 40


@dataclass(frozen=True)
class Allocation:
    """Epsilon of one token of each kind of part, and what a whole row costs. `tokens` counts all positions of a row."""

    epsilons: Mapping[str, float]
    tokens: int
    cost: DocumentCost


def allocate(config: PerturbationConfig, parts: Sequence[Part], budget: Budget) -> Allocation:
    """The price of a row from declared numbers alone, the same in the plan and on the ledger.

    Guarantee: any two rows, all parts and all positions; each token counts with the epsilon that its mechanism is asked
        to keep, whatever its certificate is below that.
    Edge cases: without `epsilon` in the config the largest, to four digits, that keeps a row within the budget.
    Raises: RefusedInput, for a mechanism that draws no tokens, for relations that a promise between any two rows does
        not imply, and for shares of parts that there are none of.
    """
    need_draws_tokens(MECHANISM, config.name)
    if budget.neighbouring not in _STATED_FOR:
        raise RefusedInput(
            "budget.neighbouring: perturbed questions show how many rows there are; it must be one of "
            f"{', '.join(_STATED_FOR)}, got {budget.neighbouring}"
        )
    if budget.unit not in _UNITS:
        raise RefusedInput(
            f"budget.unit: a row is what pays, whoever it is of; it must be one of {', '.join(_UNITS)}, got "
            f"{budget.unit}; several rows of one person add up"
        )
    if strange := sorted(set(config.shares) - {part.name for part in parts}):
        raise RefusedInput(
            f"fedcot.perturbation.shares: may name the parts that rows have, "
            f"{', '.join(dict.fromkeys(part.name for part in parts))}, got {', '.join(strange)}; leave it out"
        )
    base = config.epsilon if config.epsilon is not None else _largest(config, parts, budget)
    return _allocation(config, parts, budget, base)


def _largest(config: PerturbationConfig, parts: Sequence[Part], budget: Budget) -> float:
    low, high = 0.0, budget.epsilon
    for _ in range(_STEPS):
        middle = (low + high) / 2
        within = _allocation(config, parts, budget, middle).cost.guarantee.epsilon <= budget.epsilon
        low, high = (middle, high) if within else (low, middle)
        if high - low < 1e-4 * high:
            break
    digits = 10.0 ** (3 - math.floor(math.log10(low))) if low > 0 else 1.0
    return math.floor(low * digits) / digits


def epsilons_of(config: PerturbationConfig, parts: Sequence[Part], base: float) -> dict[str, float]:
    """Epsilon of one token of each kind of part."""
    return {part.name: base * config.shares.get(part.name, 1.0) for part in parts}


def _allocation(config: PerturbationConfig, parts: Sequence[Part], budget: Budget, base: float) -> Allocation:
    epsilons = epsilons_of(config, parts, base)
    tokens = sum(part.tokens for part in parts)
    if not promises(config.name):
        reason = f"the mechanism {config.name} promises nothing"
        nothing = Guarantee.none(reason, unit=budget.unit, neighbouring=budget.neighbouring)
        return Allocation(epsilons, tokens, DocumentCost(nothing, none_event()))
    each = [Certificate(math.inf, epsilons[part.name]) for part in parts for _ in range(part.tokens)]
    cost = document_cost(each, tokens, delta=budget.delta, unit=budget.unit, proof=PROOF)
    if budget.neighbouring is Neighbouring.LOCAL:
        return Allocation(epsilons, tokens, cost)
    # What holds between any two rows holds between a row and an empty one, or another one.
    restated = replace(cost.guarantee, neighbouring=budget.neighbouring, replace_one_epsilon=cost.guarantee.epsilon)
    return Allocation(epsilons, tokens, replace(cost, guarantee=restated))


def promises(mechanism: str) -> bool:
    """Whether the mechanism declares a guarantee."""
    return str(getattr(get_manager().find("mechanism", mechanism).spec, "guarantee", "none")) != "none"


@functools.lru_cache(maxsize=4)
def vocabulary_of(config: VocabularyConfig) -> Vocabulary:
    """The public vocabulary of a config, read once a process. Raises RefusedInput as `read_vocabulary` does."""
    return read_vocabulary("fedcot.perturbation.vocabulary", model=config.model, vectors=config.vectors)


def mechanisms_of(
    config: PerturbationConfig, vocabulary: Vocabulary, epsilons: Mapping[str, float]
) -> dict[str, TokenMechanism]:
    """The mechanism of each kind of part; kinds of equal epsilon share one.

    Raises: RefusedInput, for a mechanism that is certified for more than it was asked to keep.
    """
    made: dict[float, TokenMechanism] = {}
    for epsilon in epsilons.values():
        if epsilon in made:
            continue
        one = make_token_mechanism(MECHANISM, config.name, vocabulary.vectors, epsilon, config.options)
        check_claims(one)
        if promises(config.name) and not one.certificate.epsilon <= epsilon:
            raise RefusedInput(
                f"fedcot.perturbation: {config.name} must keep the epsilon of {epsilon:g} a token that rows pay for, "
                f"and is certified for {rounded_up(one.certificate.epsilon)}; leave out options that loosen it"
            )
        made[epsilon] = one
    return {name: made[epsilon] for name, epsilon in epsilons.items()}


def perturb(
    questions: Sequence[Question],
    task: Task,
    parts: Sequence[Part],
    vocabulary: Vocabulary,
    mechanisms: Mapping[str, TokenMechanism],
) -> tuple[Question, ...]:
    """Every part cut or padded to its public length, every token drawn anew."""
    from privkt.synthesis.privatiser import TextPrivatiser

    texts = [task.split(question) for question in questions]
    columns = []
    for place, part in enumerate(parts):
        privatiser = TextPrivatiser(vocabulary, mechanisms[part.name], k_max=part.tokens)
        columns.append([noisy.text for noisy in privatiser.draw([row[place] for row in texts])])
    return tuple(task.joined([column[i] for column in columns]) for i in range(len(questions)))


def release(site: ClientSite, config: PerturbationConfig, task: Task, questions: Sequence[Question]) -> Release[Texts]:
    """Charges the whole data set, then draws. The labels are not looked at, and nothing else of a row crosses.

    Edge cases: a step that was cut before its result was stored draws again under the same charge: nobody saw the first
        draw. A mechanism without a promise is not charged, and the gate refuses it unless it is forced.
    """
    parts = task.parts(config.tokens)
    allocation = allocate(config, parts, site.budget)
    vocabulary = vocabulary_of(config.vocabulary)
    mechanisms = mechanisms_of(config, vocabulary, allocation.epsilons)
    guarantee, details = allocation.cost.guarantee, described(config, allocation, vocabulary, mechanisms)
    charge = None
    if site.budget.ledger is not None and guarantee.is_private:
        charge = site.budget.ledger.charge(
            allocation.cost.event,
            guarantee,
            run_id=site.run_id,
            purpose=PURPOSE,
            fingerprint=site.data.fingerprint,
            declared={**details, "size": site.data.size},
            data_changed=site.data.data_changed,
            resume=True,
        ).id
    drawn = perturb(questions, task, parts, vocabulary, mechanisms)
    first = next(iter(mechanisms.values()))
    return Release(
        to_texts(drawn, task),
        guarantee,
        allocation.cost.event,
        Provenance(first.name, first.version, site.data_set_id, details),
        charge,
    )


def described(
    config: PerturbationConfig,
    allocation: Allocation,
    vocabulary: Vocabulary,
    mechanisms: Mapping[str, TokenMechanism],
) -> dict[str, object]:
    """Public settings for cards and the ledger."""
    return {
        "mechanism": config.name,
        "tokens": allocation.tokens,
        "epsilon_per_token": dict(allocation.epsilons),
        "certified": {name: one.certificate.epsilon for name, one in mechanisms.items()},
        "vocabulary": vocabulary.identity,
        "parameters": {name: dict(one.parameters()) for name, one in mechanisms.items()},
    }


def to_texts(questions: Sequence[Question], task: Task, **columns: Sequence[str]) -> Texts:
    """Questions as a table that may cross."""
    more: dict[str, tuple[str, ...]] = {name: tuple(column) for name, column in columns.items()}
    if task.has_choices:
        more[CHOICES] = tuple(json.dumps(list(question.choices), ensure_ascii=False) for question in questions)
    if task.config.context is not None:
        more[CONTEXT] = tuple(question.context or "" for question in questions)
    return Texts(tuple(question.text for question in questions), None, more)


def from_texts(texts: Texts, task: Task) -> tuple[Question, ...]:
    """The questions of such a table, which anybody may have made.

    Raises: RefusedInput, for a table of another task.
    """
    choices, contexts = texts.columns.get(CHOICES), texts.columns.get(CONTEXT)
    if (choices is not None) != task.has_choices or (contexts is not None) != (task.config.context is not None):
        raise RefusedInput("fedcot: perturbed questions must have the columns of their task; use one config everywhere")
    found = []
    for i, text in enumerate(texts.text):
        listed = json.loads(choices[i]) if choices is not None else []
        if not isinstance(listed, list) or not all(isinstance(choice, str) for choice in listed):
            raise RefusedInput(f"fedcot: row {i + 1}: choices must be a JSON list of texts; use one config everywhere")
        found.append(Question(text, tuple(listed), contexts[i] if contexts is not None else None))
    return tuple(found)
