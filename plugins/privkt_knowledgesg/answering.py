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

# How models decline. A doctor who is sorry, advises against something or could not see a picture declines nothing.
_GREETING = r"^\W*(?:(?:hello|hi|dear|thank you|thanks)\b[^.!,\n]{0,60}[.!,]?\s+)?"
_SORRY = (
    r"(?:(?:i(?:['’]m| am)\s+)?(?:(?:very|really|so|truly)\s+)?(?:sorry|afraid)|(?:my\s+)?(?:sincere\s+)?apologies"
    r"|i\s+(?:sincerely\s+)?apologi[sz]e|unfortunately)\b"
)
_WHAT = (
    r"(?:help|assist|answer|provide|comply|fulfil|respond|offer|give|comment|prescribe|recommend|diagnose|discuss|advise"
    r"|make\s+a\s+diagnosis|determine|understand|do\s+(?:that|this|so))"
)
_CANNOT = (
    rf"i\s*(?:can\s*(?:no|['’])t|can not|won['’]t|will not)\s+(?:\w+ly\s+)?{_WHAT}\b"
    r"|i\s*(?:am|['’]m)\s+(?:unable|not\s+(?:able|qualified|allowed))\b|i\s+(?:must|have\s+to)\s+decline\b"
    r"|i\s+(?:do not|don['’]t)\s+(?:answer|comply|assist|help|respond|comment|provide)\b"
)
_LACKS = r"i\s+(?:do not|don['’]t)\s+(?:understand|have\s+(?:enough|sufficient|access|the|any|personal|that))\b"
_MACHINE = (
    r"(?:as|i(?:['’]m| am)(?:\s+(?:just|only))?)\s+an?\s+(?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?:['’]m| am)\s+not\s+a\s+(?:doctor|physician|lawyer)\b"
)
_REFUSAL = re.compile(
    rf"{_GREETING}(?:{_SORRY}(?:\W*$|[^.!?\n]{{0,80}}?\b(?:{_CANNOT}|{_LACKS}|{_MACHINE}))|(?:{_CANNOT}|{_MACHINE}))",
    re.I,
)
_SOME = 4  # words that are something of an answer
_BUT = re.compile(r"[^.!?\n]*?\b(?:but|however)\b\W*(?P<rest>[^\n]*)", re.I)


def is_refusal(answer: str) -> bool:
    """Whether an answer declines to answer.

    Edge cases: "I'm sorry to hear that, ..." and "I'm afraid that is a broken toe" go on to an answer and are none; nor
        is a refusal that is only quoted, or one that goes on in the same sentence ("I cannot diagnose this without
        seeing it, but it sounds like ringworm"), unless it is a machine that speaks of itself.
    """
    found = _REFUSAL.match(answer)
    if found is None:
        return False
    if re.search(_MACHINE, found.group(), re.I):
        return True
    but = _BUT.match(answer[found.end() :])
    return but is None or is_refusal(but["rest"]) or count_words(but["rest"]) < _SOME


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
