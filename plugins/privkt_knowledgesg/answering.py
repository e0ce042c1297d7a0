"""Step 4: a professional model answers the instructions; empty answers and refusals are dropped and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from privkt.contracts import Backend, ChatTurn, Progress, Prompt, Sampling
from privkt.synthesis.asking import ask
from privkt.synthesis.filters import FilterReport, strip_decoration
from privkt.synthesis.words import count_words
from privkt_knowledgesg.config import ProfessionalConfig
from privkt_knowledgesg.pairs import Pair, PairTemplate
from privkt_knowledgesg.scoring import label_in

# How models decline; a doctor who is sorry, or says that a patient cannot do something, declines nothing.
_VERBS = r"(?:help|assist|answer|provide|comply|fulfil|respond|offer|give|comment|diagnose|discuss|advise)"
_CANNOT = (
    r"i\s*(?:(?:can|could)\s*(?:no|['’])t|can not|could not|couldn['’]t|won['’]t|will not|must decline|have to decline"
    r"|(?:am|['’]m)\s+(?:unable|not able|not qualified|not allowed|an ai|just an ai))\b"
    rf"|i\s+(?:do not|don['’]t)\s+(?:have|know|feel|{_VERBS})\b|as\s+an?\s+(?:ai|artificial|(?:large )?language)\b"
)
_REFUSAL = re.compile(
    # sorry, and in the same sentence what for
    r"^\W*(?:i(?:['’]m| am)\s+)?(?:(?:very|really|so|truly)\s+)?(?:sorry|afraid|(?:my )?(?:sincere )?apologies"
    rf"|i (?:sincerely )?apologi[sz]e|unfortunately)\b(?:\W*$|[^.!?\n]{{0,80}}?\b(?:{_CANNOT}))"
    rf"|^\W*i\s+(?:can(?:no|['’])t|can not|won['’]t|will not|do not|don['’]t)\s+{_VERBS}\b"
    r"|^\W*i(?:['’]m| am)\s+(?:unable|not able|not qualified|not allowed)\b|^\W*i\s+(?:must|have to)\s+decline\b"
    r"|^\W*(?:as|i(?:['’]m| am)(?: just)?)\s+an?\s+(?:ai|artificial intelligence|(?:large )?language model)\b",
    re.I,
)


def is_refusal(answer: str) -> bool:
    """Whether an answer declines to answer.

    Edge cases: "I'm sorry to hear that, ..." and "I'm afraid that is a broken toe" go on to an answer and are none; nor
        is a refusal that is only quoted.
    """
    return bool(_REFUSAL.match(answer))


def closing_words(config: ProfessionalConfig, names: Mapping[str, str] | None) -> str:
    """What the professional model reads behind each instruction; `names` are those of labels, if one is wanted."""
    if config.closing is None and names is not None:  # one that reasons first may not come to a label in `max_tokens`
        return f"Answer with one of these words alone: {', '.join(names.values())}."
    return config.closing or ""


def answer(
    questions: Sequence[Pair],
    template: PairTemplate,
    professional: Backend,
    config: ProfessionalConfig,
    *,
    chat: bool,
    seed: int,
    journal: Path,
    progress: Progress | None = None,
    title: str = "asking the professional model",
    names: Mapping[str, str] | None = None,
) -> tuple[tuple[Pair, ...], FilterReport]:
    """(pairs of an instruction and the professional model's response, counts of what was dropped).

    `names`: those of labels, if a response is to become one of them.
    """
    closing = closing_words(config, names)
    end = f"\n\n{closing}" if closing else ""
    prompts: list[Prompt] = [_prompt(pair.question + end, template, chat=chat) for pair in questions]
    sampling = Sampling(
        max_new_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        stop=() if chat else tuple(m for m in (template.question_mark, template.response_mark) if m),
        seed=seed,
    )
    answers = ask(
        professional, prompts, sampling, journal=journal, portion=config.portion, progress=progress, title=title
    )
    dropped: Counter[str] = Counter()
    pairs = []
    for pair, given in zip(questions, answers, strict=True):
        text = strip_decoration(given.text)
        if not text:
            dropped["empty response"] += 1
        elif is_refusal(text):
            dropped["refusal"] += 1
        elif count_words(text) < config.min_words:
            dropped["response too short"] += 1
        elif names is None:
            pairs.append(Pair(pair.question, text))
        elif (label := label_in(text, names)) is None:
            dropped["no label in the response"] += 1
        else:
            pairs.append(Pair(pair.question, names[label]))
    return tuple(pairs), FilterReport(len(questions), len(pairs), dict(dropped))


def _prompt(question: str, template: PairTemplate, *, chat: bool) -> Prompt:
    if not chat:
        return template.prompt(question)
    return (ChatTurn("user", f"{template.task}\n\n{question}" if template.task else question),)
