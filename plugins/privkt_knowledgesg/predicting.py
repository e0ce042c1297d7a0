"""What `privkt predict` gives: labels by their names' likelihood, or written answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from privkt.contracts import Backend, Prediction
from privkt_knowledgesg.pairs import PairTemplate
from privkt_knowledgesg.scoring import answers_of


def label_predictions(
    model: Backend, template: PairTemplate, texts: Sequence[str], names: Mapping[str, str]
) -> list[Prediction]:
    """The likeliest label of each text; its probability among the labels' names, each a whole answer."""
    prompts = [template.prompt(text) for text in texts for _ in names]
    scores = model.score(prompts, [name for _ in texts for name in names.values()])
    found = []
    for start in range(0, len(scores), len(names)):
        logs = [score.logprob for score in scores[start : start + len(names)]]
        weights = [math.exp(log - max(logs)) for log in logs]
        best = max(range(len(logs)), key=lambda i: weights[i])
        found.append(Prediction(list(names)[best], weights[best] / sum(weights)))
    return found


def free_answers(model: Backend, template: PairTemplate, texts: Sequence[str], max_tokens: int) -> list[Prediction]:
    """The greedy answer to each text, and the geometric mean of its tokens' probabilities after the prompt."""
    prompts = [template.prompt(text) for text in texts]
    answers = answers_of(model, prompts, template, max_tokens)
    scores = model.score(prompts, answers)
    return [
        Prediction(answer, math.exp(score.logprob / score.tokens) if score.tokens else 0.0)
        for answer, score in zip(answers, scores, strict=True)
    ]
