import math

import pytest

from privkt.privacy import (
    Guarantee,
    Kind,
    RefusedInput,
    Unit,
    epsilon,
    gaussian_event,
    poisson_gaussian_event,
    pure_event,
    zcdp_event,
)
from privkt.privacy.accounting import zcdp_rho
from privkt.privacy.conversion import to_larger_unit


def test_a_document_of_capped_length_pays_for_every_token():
    token = Guarantee(Kind.PURE, 0.5, unit=Unit.TOKEN, neighbouring="local")
    event, document = to_larger_unit(pure_event(0.5), token, Unit.DOCUMENT, 16)
    assert document.epsilon == 8.0
    assert (document.kind, document.unit, document.neighbouring) == (Kind.PURE, Unit.DOCUMENT, token.neighbouring)
    assert document.conditional_on == ("at most 16 tokens a document",)
    assert epsilon(event, 0.0) == 8.0


def test_rho_grows_with_the_square_and_sensitivity_with_the_number():
    guarantee = Guarantee(Kind.ZCDP, epsilon(zcdp_event(0.01), 1e-5), 1e-5, rho=0.01)
    event, user = to_larger_unit(zcdp_event(0.01), guarantee, Unit.USER, 3)
    assert user.rho == pytest.approx(0.09)
    assert zcdp_rho(event) == pytest.approx(0.09)
    sigma = math.sqrt(1 / 0.02)
    gaussian, of_user = to_larger_unit(gaussian_event(sigma), Guarantee(Kind.APPROXIMATE, 1.0, 1e-5), Unit.USER, 3)
    assert gaussian == gaussian_event(sigma / 3)
    assert of_user.epsilon == epsilon(gaussian, 1e-5)


@pytest.mark.parametrize(
    ("event", "guarantee", "unit", "rule"),
    [
        (pure_event(1.0), Guarantee(Kind.PURE, 1.0, unit="record"), "token", "from a smaller to a larger unit"),
        (pure_event(1.0), Guarantee(Kind.PURE, 1.0, unit="record"), "record", "from a smaller to a larger unit"),
        (pure_event(1.0), Guarantee.none("raw"), "user", "kind none says nothing about groups"),
        (
            poisson_gaussian_event(1.0, 0.1, 10),
            Guarantee(Kind.APPROXIMATE, 9.0, 1e-5),
            "user",
            "PoissonSampledDpEvent samples the smaller unit",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(event, guarantee, unit, rule):
    with pytest.raises(RefusedInput, match=rule):
        to_larger_unit(event, guarantee, unit, 2)
