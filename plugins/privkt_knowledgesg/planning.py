"""What a run will spend, ask and send, from declared numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from privkt.contracts import Plan, PublicFacts, TrainingPlan
from privkt.privacy import Budget, RefusedInput
from privkt.privacy.guarantee import HALF_PRECISION
from privkt.synthesis.planning import plan_training, training_warnings
from privkt.synthesis.words import SPACELESS, count_words
from privkt_knowledgesg.answering import closing_words
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.pairs import Pair, PairTemplate
from privkt_knowledgesg.seeds import Origin

PURPOSE = "knowledgesg: fine-tune the adapter"
_TOKENS_A_WORD = 1.4
_BYTES_A_WEIGHT = 4
_FRAME = 40


def training_plan(config: KnowledgeSGConfig, facts: PublicFacts, budget: Budget) -> TrainingPlan:
    """The one private training, over all of its steps."""
    return plan_training(config.tuning, facts, budget, purpose=PURPOSE, where="knowledgesg.tuning")


def make_plan(
    config: KnowledgeSGConfig,
    template: PairTemplate,
    facts: PublicFacts,
    budget: Budget,
    names: Mapping[str, str],
) -> Plan:
    """One client's plan: its training, the questions to the professional model on its behalf, what crosses.

    `names`: the words of labels in responses.
    """
    for place, column in config.fields.columns().items():
        facts.need_column(f"knowledgesg.fields.{place}", column)
    training = training_plan(config, facts, budget)
    requests, asked, written = professional_tokens(config, template, names)
    licence = config.professional.licence
    return Plan(
        trainings=(training,),
        llm_requests=requests,
        llm_prompt_tokens=asked,
        llm_new_tokens=written,
        bytes_out=None,
        shared=True,
        crosses=(
            f"client to server: one adapter of LoRA {_lora(config.tuning.lora)} and its privacy card, "
            f"{_BYTES_A_WEIGHT} bytes a weight; its size follows from the model and these numbers, and is public",
            "server to client: the adapter that was trained on answered instructions"
            + (
                ", and those of the baselines"
                if any(a.is_served and a is not Arm.KNOWLEDGESG for a in config.arms)
                else ""
            ),
        ),
        not_covered=(
            f"what the professional model writes is used under {licence or 'a licence that the config does not name'}; "
            "whether that allows it is not checked here",
            f"if the base model computes in half precision, the guarantee is conditional on: {HALF_PRECISION}",
            "settings chosen by looking at results on the private data are outside the epsilon",
            "the template, the public seeds, the declared size and the adapter's shape are public",
            *(
                f"baseline {arm.value!r} uses private rows without any noise, in the client's process only"
                for arm in config.arms
                if arm in (Arm.PRIVATE, Arm.IN_CONTEXT)
            ),
        ),
        warnings=tuple(_warnings(config, training, facts)),
    )


def professional_tokens(
    config: KnowledgeSGConfig, template: PairTemplate, names: Mapping[str, str]
) -> tuple[int, int, int]:
    """(requests, tokens sent, tokens written at most) of the professional model's part."""
    rule, filters = config.writing, config.filters
    frame = _tokens(template.prompt("")) + _tokens(_closing(config, names))
    written_by = [arm for arm in config.arms if arm in (Arm.KNOWLEDGESG, Arm.NO_PRIVATE)]
    judged = (filters.domain is not None) + filters.quality
    judging = len(_written_sets(config)) * judged * math.ceil(rule.attempts * rule.count)
    seeds = [_tokens(seed.question) for seed in _seeds(config)] if Arm.SEEDS in config.arms else []
    answering = len(written_by) * rule.count + len(seeds)
    asked = judging * (rule.max_tokens + _FRAME) + len(written_by) * rule.count * (rule.max_tokens + frame)
    asked += sum(seeds) + len(seeds) * frame
    return judging + answering, asked, judging * 4 + answering * config.professional.max_tokens


def context_needed(config: KnowledgeSGConfig, template: PairTemplate, names: Mapping[str, str]) -> dict[str, int]:
    """Tokens of the longest prompt with its answer, by role.

    A public seed counts as much as a written instruction, and more where it is longer. A judge's prompts hold private
    rows: what it cannot hold is left out there, and counted.
    """
    frame, writing = _tokens(template.prompt("")), config.writing
    pairs = writing.shape == "pair" or Arm.DP_PAIRS in config.arms
    response = config.professional.max_tokens if pairs else 0
    seeds = _seeds(config)
    own, public = (origin in writing.seeding for origin in (Origin.OWN, Origin.PUBLIC))
    shown = [_tokens(seed.question) + (_tokens(seed.response) if pairs else 0) for seed in seeds if public]
    if own or (public and config.seeds is not None):
        shown += [writing.max_tokens + (response if own else 0)] * writing.shots
    asked = max([writing.max_tokens, *(_tokens(seed.question) for seed in seeds if Arm.SEEDS in config.arms)])
    return {
        "base": frame
        + max(
            sum(sorted(shown)[-writing.shots :]) + writing.max_tokens + response,
            config.scoring.max_tokens + writing.max_tokens,
        ),
        "professional": frame + _tokens(_closing(config, names)) + asked + config.professional.max_tokens,
    }


def _seeds(config: KnowledgeSGConfig) -> Sequence[Pair]:
    """The public seeds."""
    if config.seeds is None or (config.seeds.path is None and Arm.SEEDS not in config.arms):
        return ()  # what it takes to read a hub's may be at the server alone
    from privkt_knowledgesg.distilling import load_seeds

    with suppress(RefusedInput):  # what cannot be read is refused where a run begins; a report needs no count
        return [seed.pair for seed in load_seeds(config.seeds)]
    return ()


def _closing(config: KnowledgeSGConfig, names: Mapping[str, str]) -> str:
    """What the professional model reads behind each instruction."""
    wants_labels = config.fields.response == "label" and config.professional.as_label
    return closing_words(config.professional, names if wants_labels else None)


def _tokens(text: str) -> int:
    """About how many tokens a text has: of a script without spaces, one a letter."""
    letters = len(SPACELESS.findall(text))
    return math.ceil(_TOKENS_A_WORD * (count_words(text) - letters) + letters)


def _written_sets(config: KnowledgeSGConfig) -> set[str]:
    """The sets of instructions that are written: with the adapter, and without it for the controls."""
    found = {"adapter"}
    if {Arm.NO_PRIVATE, Arm.SELF_INSTRUCT} & set(config.arms):
        found.add("base")
    if Arm.DP_PAIRS in config.arms:
        found.add("pairs")
    return found


def _lora(lora: object) -> str:
    return str(lora) if lora else "as the model's own `lora` says"


def _warnings(config: KnowledgeSGConfig, training: TrainingPlan, facts: PublicFacts) -> list[str]:
    found = training_warnings(training, "tuning")
    if config.fields.response == "label" and "judge" in (facts.roles or ()):
        found.append("models.judge is not asked anything: responses are labels, and labels are counted")
    if config.professional.licence is None:
        found.append(
            "professional.licence is not given: find out whether the professional model's makers allow training on "
            "what it writes, and say so"
        )
    if config.seeds is None and Origin.PUBLIC in config.writing.seeding:
        found.append("no public `seeds` are given: instructions are written after the header, or own ones, alone")
    if config.seeds is None and Arm.SEEDS in config.baselines:
        found.append(f"baseline {Arm.SEEDS.value!r} needs public `seeds` and is left out")
    if config.filters.min_words * _TOKENS_A_WORD > config.writing.max_tokens:
        found.append("filters.min_words hardly fits into writing.max_tokens: most instructions will be dropped")
    if Arm.NO_PRIVATE not in config.arms:
        found.append(
            f"without the baseline {Arm.NO_PRIVATE.value!r} nothing will show what the private data contributed"
        )
    return found
