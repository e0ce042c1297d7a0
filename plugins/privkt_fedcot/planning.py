"""What a run will spend, ask and send, from declared numbers and the public vocabulary alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from privkt.contracts import PerturbationPlan, Plan, PublicFacts
from privkt.privacy import Budget, RefusedInput, event_to_json
from privkt.privacy.ceiling import utility_ceiling
from privkt.privacy.guarantee import rounded_up, weakness
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from privkt_fedcot.perturbing import PURPOSE, allocate, vocabulary_of
from privkt_fedcot.prompts import worked_example
from privkt_fedcot.tasks import Task

if TYPE_CHECKING:
    from privkt.synthesis.vocabulary import Vocabulary

_TOKENS_A_WORD = 1.4
_SAMPLED = 1024
_BYTES_A_PART = 4
_FRAME = 60


def make_plan(config: FedCoTConfig, task: Task, facts: PublicFacts, budget: Budget) -> Plan:
    """One client's plan: its perturbation, the questions to the large model on its behalf, what crosses.

    Raises: RefusedInput, for settings that no run may have.
    """
    budget.validate_for(facts.size)
    _need_decoder(config)
    _need_columns(task, facts)
    parts = task.parts(config.perturbation.tokens)
    allocation = allocate(config.perturbation, parts, budget)
    vocabulary = vocabulary_of(config.perturbation.vocabulary)
    worked = math.ceil(_TOKENS_A_WORD * len(worked_example(task, config.rationale.worked).split())) + _FRAME
    sent = facts.size * (worked + allocation.tokens)
    ceilings = {name: utility_ceiling(epsilon, vocabulary.size) for name, epsilon in allocation.epsilons.items()}
    alike: dict[float, list[str]] = {}
    for name, share in ceilings.items():
        alike.setdefault(share, []).append(name)
    return Plan(
        perturbations=(
            PerturbationPlan(
                purpose=PURPOSE,
                mechanism=config.perturbation.name,
                positions=allocation.tokens,
                epsilon_per_token=max(allocation.epsilons.values()),
                guarantee=allocation.cost.guarantee,
                event_json=event_to_json(allocation.cost.event),
                facts=tuple(
                    f"tokens of {' and '.join(names)}, of a vocabulary of {vocabulary.size:,}: no mechanism of "
                    "this epsilon brings every one of them through unchanged with a chance above "
                    f"{rounded_up(100 * share, 3)} %"
                    for share, names in alike.items()
                ),
            ),
        ),
        llm_requests=facts.size,
        llm_prompt_tokens=sent,
        llm_new_tokens=facts.size * config.rationale.max_tokens,
        bytes_out=round(facts.size * (allocation.tokens * _bytes_a_token(vocabulary) + len(parts) * _BYTES_A_PART)),
        crosses=(
            f"client to server: {facts.size} perturbed questions of {allocation.tokens} drawn tokens each, in the "
            "order of the rows; no label",
            "server to client: one rationale a perturbed question",
        ),
        not_covered=(
            "the final small model is trained on the private rows themselves: it is not private and must not be shared",
            "questions that the small model is asked later are answered in this process; asked of a large model they "
            "would cross in clear",
            "settings chosen by looking at results on the private data are outside the epsilon",
            "a person with several rows pays for each of them",
            "the declared size, the order of rows, the labels' names, the length of every part and the vocabulary are "
            "public; the vocabulary's model must not have been trained on the private rows",
            *(
                f"baseline {arm.value!r} shows unprotected text to the role local_llm, in the client's process only"
                for arm in config.arms
                if arm.is_open
            ),
        ),
        shared=True,
        warnings=tuple(_warnings(max(ceilings.values()), allocation.cost.guarantee.epsilon)),
    )


def _bytes_a_token(vocabulary: Vocabulary) -> float:
    """Of a token that may be any of the vocabulary, as drawn ones may."""
    rows = range(0, vocabulary.size, max(1, vocabulary.size // _SAMPLED))
    return len(vocabulary.decode(rows).encode()) / len(rows)


def context_needed(config: FedCoTConfig, task: Task) -> dict[str, int]:
    """{role: tokens of its longest prompt with the answer}, for rows no longer than the parts that are perturbed."""
    worked = math.ceil(_TOKENS_A_WORD * len(worked_example(task, config.rationale.worked).split())) + _FRAME
    row = sum(part.tokens for part in task.parts(config.perturbation.tokens))
    noisy = math.ceil(_TOKENS_A_WORD * row)  # drawn tokens seldom join into words that another tokenizer has
    asked = worked + noisy + config.rationale.max_tokens
    shown = asked if config.decoder.kind == "in-context" else asked - worked
    return {
        "llm": asked,
        "local_llm": asked,
        "slm": max(shown + row + config.decoder.max_tokens, config.slm.max_length),
    }


def _need_columns(task: Task, facts: PublicFacts) -> None:
    if task.has_choices:
        facts.need_column("fedcot.task.choices", task.config.choices)
    if task.config.context is not None:
        facts.need_column("fedcot.task.context", task.config.context)


def _need_decoder(config: FedCoTConfig) -> None:
    if config.decoder.kind == "trained" and config.decoder.public is None:
        raise RefusedInput(
            "fedcot.decoder.public: a trained decoder learns from public questions alone, and none are given; name a "
            "public data set, or use the in-context decoder"
        )
    if config.decoder.kind == "trained" and config.perturbation.epsilon is None:
        raise RefusedInput(
            "fedcot.perturbation.epsilon: a trained decoder's public questions are perturbed like private ones, by the "
            "server, which knows no client's budget; give the epsilon of a token"
        )
    if Arm.LARGE in config.arms and config.rationale.layout == "chat":
        raise RefusedInput(
            "fedcot.baselines: 'large-model' scores answers after a plain prompt, not a chat; leave one out"
        )


def _warnings(kept: float, epsilon: float) -> list[str]:
    found = []
    if kept < 0.05:
        found.append(
            f"not every token can come through with a chance above {rounded_up(100 * kept, 2)} %: the server sees "
            "mostly noise, and rationales then help by chance; take fewer tokens a row, a larger epsilon or a smaller "
            "vocabulary"
        )
    if (weak := weakness(epsilon, "row")) is not None:
        found.append(weak)
    return found
