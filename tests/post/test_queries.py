"""Texts that are labelled later: perturbed token by token, at a price that adds up."""

import pytest
from privkt_post.config import InferenceConfig
from privkt_post.queries import PrivateQueries

from privkt.privacy import RefusedInput

TEXT = "the meal was cold and stale they said"


def queries(llama, delta=0.0, **changes):
    return PrivateQueries(
        llama, InferenceConfig(**{"mechanism": "exponential", "tokens": 6, "epsilon": 3.0, **changes}), delta=delta
    )


def test_a_text_costs_all_of_its_public_length_and_a_person_all_texts(llama):
    found = queries(llama, queries=5)
    token = found.privatiser.certificates[0].epsilon
    assert 2.9 < token <= 3.0
    assert found.of_query.epsilon == pytest.approx(6 * token)
    assert (found.of_query.unit, found.of_query.neighbouring) == ("document", "local")
    assert found.of_person.epsilon == pytest.approx(30 * token)
    assert found.of_person.unit == "user"


def test_with_a_delta_many_texts_compose_to_less(llama):
    loose, tight = queries(llama, queries=200, epsilon=0.05), queries(llama, delta=1e-5, queries=200, epsilon=0.05)
    assert tight.of_person.epsilon < 0.5 * loose.of_person.epsilon
    assert tight.of_person.delta == 1e-5


def test_texts_are_cut_padded_and_drawn_anew(llama):
    found = queries(llama, epsilon=0.1)
    first, second, short = found.perturbed([TEXT, TEXT, "cold"])
    assert first != second
    assert all(len(text.split()) <= 6 for text in (first, second, short))
    assert found.perturbed([TEXT])[0] != first
    sure = queries(llama, epsilon=60.0, tokens=4)
    assert sure.perturbed([TEXT])[0].split() == TEXT.split()[:4]


def test_a_mechanism_that_promises_nothing_says_so(llama):
    assert not queries(llama, mechanism="noisy_neighbour").of_query.is_private


def test_without_a_mechanism_nothing_is_perturbed(llama):
    with pytest.raises(RefusedInput, match="must name a token mechanism"):
        PrivateQueries(llama, InferenceConfig())
