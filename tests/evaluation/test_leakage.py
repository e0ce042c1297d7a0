"""The leak report counts what it says: nothing survives a law that never answers, everything one that always does."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))  # the toy mechanism lives beside its own tests
from toy_tokens import Toy, vocabulary

from privkt.evaluation.leakage import Survivors, leak_report
from privkt.synthesis.privatiser import TextPrivatiser

VOCABULARY = vocabulary()
TEXTS = ["the visit was cold", "Then Anna was rude, 12. a", "", "a 3"]


def report(mechanism, texts=TEXTS, **more):
    made = TextPrivatiser(VOCABULARY, mechanism, k_max=8, **more)
    return leak_report(made, texts, made.draw(texts))


class Constant(Toy):
    """Answers one row whatever is asked."""

    def sample_ids(self, ids):
        return np.full_like(ids, VOCABULARY.padding)

    def probabilities(self, ids):
        return np.eye(self.size)[[VOCABULARY.padding] * len(ids)]


def test_nothing_survives_a_law_that_never_answers():
    found = report(Constant(VOCABULARY.vectors, 1.0))
    tokens = sum(min(8, len(VOCABULARY.encode(text))) for text in TEXTS)
    assert (found.tokens, found.unchanged, found.lengths, found.cut) == (tokens, 0, 1, 1)
    most = 2  # `was`, twice
    assert found.bayes == found.bayes_blind == most / tokens
    assert found.numbers == Survivors(2, 0, 0)
    assert found.names == Survivors(1, 0, 0)


def test_everything_survives_a_law_that_hides_nothing():
    found = report(Toy(VOCABULARY.vectors, 300.0, bounded=False), ["the visit was cold", "so Anna 12 3"])
    assert found.unchanged == found.bayes == 1
    assert found.numbers == Survivors(2, 1, 0)  # 12 came out as the digits that it is made of
    assert found.names == Survivors(1, 1, 0)


def test_bayes_is_the_best_guess_by_enumeration():
    """A law and a prior small enough to list: the share found is that of guessing every output's likeliest input."""
    mechanism = Toy(VOCABULARY.vectors, 2.0)
    texts = ["the the the cold", "cold the"] * 30
    made = TextPrivatiser(VOCABULARY, mechanism, k_max=4)
    drawn = made.draw(texts)
    found = leak_report(made, texts, drawn)
    law = mechanism.probabilities(np.asarray([1, 4])) * np.asarray([[4], [2]])
    guess = np.asarray([1, 4])[law.argmax(0)]
    pairs = [
        (truth, answer)
        for text, one in zip(texts, drawn, strict=True)
        for truth, answer in zip(VOCABULARY.encode(text).tolist(), one.ids, strict=False)
    ]
    assert found.looked_at == len(pairs) == 180
    assert found.bayes == pytest.approx(np.mean([guess[answer] == truth for truth, answer in pairs]))
    assert found.bayes_blind == pytest.approx(4 / 6)


def test_lengths_are_counted_where_they_show():
    assert report(Toy(VOCABULARY.vectors, 1.0), padded=False).lengths == 4
    assert report(Toy(VOCABULARY.vectors, 1.0)).lengths == 1


def test_it_is_marked_and_says_it_in_words():
    found = report(Toy(VOCABULARY.vectors, 1.0))
    assert found.to_json()["private"].endswith("keep it to yourself")
    assert len(found.lines()) == 6
    assert not math.isnan(found.unchanged)
    assert report(Toy(VOCABULARY.vectors, 1.0), []).tokens == 0


def test_names_are_found_whatever_their_case():
    from privkt.evaluation.leakage import _survivors

    found = _survivors([["Cancer", "Liver"], ["Fever"]], [{"cancer", "of"}, {"liver"}])
    assert (found.found, found.survived, found.by_chance) == (3, 1, 1)
