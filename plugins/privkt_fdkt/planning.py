"""What a run will spend, ask and send, from declared numbers alone."""

from __future__ import annotations

import math

from privkt.contracts import Plan, PublicFacts, TrainingPlan
from privkt.privacy import Budget
from privkt.privacy.guarantee import HALF_PRECISION
from privkt.synthesis.planning import plan_training, training_warnings
from privkt.synthesis.templates import Template
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig

PURPOSE = "fdkt: fine-tune the generator"
_TOKENS_A_WORD = 1.4
_BYTES_A_TOKEN = 5
_SELECTION_FRAME = 130
_PROMPT_FRAME = 20


def training_plan(config: FDKTConfig, facts: PublicFacts, budget: Budget) -> TrainingPlan:
    """The one private training, the generator's (see `privkt.synthesis.planning`)."""
    return plan_training(config.generator, facts, budget, purpose=PURPOSE, where="fdkt.generator")


def make_plan(config: FDKTConfig, template: Template, facts: PublicFacts, budget: Budget) -> Plan:
    """One client's plan: its training, the questions to the large model on its behalf, what crosses."""
    training = training_plan(config, facts, budget)
    requests, asked, written = llm_tokens(config, template)
    drawn = config.samples_per_label * len(template.labels)
    return Plan(
        trainings=(training,),
        llm_requests=requests,
        llm_prompt_tokens=asked,
        llm_new_tokens=written,
        bytes_out=drawn * config.max_tokens * _BYTES_A_TOKEN,
        crosses=(
            f"client to server: at most {drawn} synthetic texts of at most {config.max_tokens} tokens with their "
            f"labels, {config.samples_per_label} a label",
            "server to client: texts that the large model wrote, with their labels",
        ),
        not_covered=(
            f"if the generator computes in half precision, its guarantee is conditional on: {HALF_PRECISION}",
            "the final small model is trained on the private rows themselves: it is not private and must not be shared",
            "settings chosen by looking at results on the private data are outside the epsilon",
            "labels, domain, control code, the declared size and the number of texts are public",
            *(
                f"baseline {arm.value!r} shows unprotected text to the role local_llm, in the client's process only"
                for arm in config.arms
                if arm.is_open
            ),
        ),
        warnings=tuple(_warnings(config, facts, training)),
    )


def llm_tokens(config: FDKTConfig, template: Template) -> tuple[int, int, int]:
    """(requests, tokens sent, tokens written at most) of the server's part."""
    code = max(_tokens(template.prompt(label)) for label in template.labels)
    drawn = config.samples_per_label * len(template.labels)
    requests = asked = written = 0
    arms = [arm for arm in config.arms if arm.is_augmented or arm.is_open]
    choosing = sum(arm not in (Arm.ZERO_SHOT, Arm.NO_SELECTION) for arm in arms) if config.selection else 0
    if choosing:
        clusters = math.ceil(drawn / config.cluster_size)
        requests += choosing * clusters
        asked += choosing * (clusters * _SELECTION_FRAME + drawn * (config.max_tokens + 8))
        written += choosing * clusters * config.llm.selection_tokens
    shown = config.demonstrations * min(len(template.labels), config.labels_per_prompt)
    for arm in arms:
        rows = 0 if arm is Arm.ZERO_SHOT else shown
        requests += config.prompts
        asked += config.prompts * (_PROMPT_FRAME + code + rows * (code + config.max_tokens))
        written += config.prompts * config.llm.texts_per_prompt * config.llm.max_tokens
    return requests, asked, written


def _tokens(text: str) -> int:
    return math.ceil(_TOKENS_A_WORD * len(text.split())) + 1


def _warnings(config: FDKTConfig, facts: PublicFacts, training: TrainingPlan) -> list[str]:
    found = training_warnings(training, "generator")
    if config.min_words * _TOKENS_A_WORD > config.max_tokens:
        found.append(
            f"min_words = {config.min_words} hardly fits into max_tokens = {config.max_tokens}: most texts will be "
            "dropped"
        )
    if config.samples_per_label * len(facts.labels or ()) < config.cluster_size:
        found.append("fewer synthetic texts than cluster_size: there will be one cluster")
    return found
