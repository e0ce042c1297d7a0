"""Mechanisms that say two things of themselves, and draws that are no rows of the vocabulary."""

import math

import numpy as np
import pytest
from toy_tokens import Toy, ledger, privacy, vocabulary

from privkt.privacy import Certificate, Guarantee, Kind, Neighbouring, RefusedInput, Unit, none_event, pure_event
from privkt.synthesis.privatiser import Record, TextPrivatiser
from privkt.synthesis.token_budget import ByTokenType
from privkt.synthesis.token_claims import check_claims, drawn_by

VOCABULARY = vocabulary()
V = VOCABULARY.size
LOCAL = {"unit": Unit.TOKEN, "neighbouring": Neighbouring.LOCAL}
METRIC = {**LOCAL, "metric": "euclidean", "metric_scale": 1.0}


class Says(Toy):
    """A toy of epsilon 1 that states what it is told to."""

    def __init__(self, guarantee=None, certificate=None, event=None):
        super().__init__(VOCABULARY.vectors, 1.0)
        self.said = guarantee, certificate, event

    @property
    def guarantee(self):
        return super().guarantee if self.said[0] is None else self.said[0]

    @property
    def certificate(self):
        return super().certificate if self.said[1] is None else self.said[1]

    def event(self):
        return super().event() if self.said[2] is None else self.said[2]


CONTRADICTIONS = [
    (Says(Guarantee(Kind.PURE, 5.0, **LOCAL), Certificate(math.inf, 0.01)), "must cover its guarantee .* = 5, got one"),
    (Says(event=pure_event(3.0)), "must cover its guarantee and its event, epsilon = 3"),
    (Says(event=none_event()), "its event, epsilon = inf"),
    (Says(Guarantee(Kind.METRIC, 1.0, **METRIC), event=pure_event(1.1), certificate=Certificate(1.0)), "epsilon = 1.1"),
    (Says(Guarantee(Kind.APPROXIMATE, 1.0, 0.1, **LOCAL)), "kind pure or metric with delta = 0, got approximate"),
    (Says(Guarantee(Kind.ZCDP, 1.0, 1e-5, rho=0.1, **LOCAL)), "got zcdp"),
    (Says(Guarantee(Kind.PURE, 0.5, unit=Unit.RECORD, neighbouring=Neighbouring.LOCAL)), "got record and local"),
    (Says(Guarantee(Kind.PURE, 0.5, unit=Unit.TOKEN)), "got token and zero-out"),
    (Says(Guarantee(Kind.PURE, 0.5, conditional_on=("words are alike",), **LOCAL)), "conditional on words are alike"),
    (Says(Guarantee(Kind.PURE, 1.0, **LOCAL), Certificate(math.inf)), "needs a finite certificate"),
    (Says(Guarantee(Kind.METRIC, 1.0, **METRIC), Certificate(math.inf)), "needs a finite certificate"),
]


@pytest.mark.parametrize(("made", "message"), CONTRADICTIONS)
def test_what_a_certificate_does_not_cover_is_refused_before_anything_is_charged(made, message):
    for use in (
        lambda: check_claims(made),
        lambda: TextPrivatiser(VOCABULARY, made, k_max=3),
        lambda: TextPrivatiser(VOCABULARY, [Toy(VOCABULARY.vectors, 1.0), made], k_max=2),
        lambda: ByTokenType([Toy(VOCABULARY.vectors, 1.0), made], np.arange(V) % 2),
    ):
        with pytest.raises(RefusedInput, match=message):
            use()


def test_what_fits_together_passes():
    check_claims(Says())
    check_claims(Says(Guarantee(Kind.PURE, 1.0 + 1e-10, **LOCAL), Certificate(1.0), pure_event(1.0)))
    # a metric epsilon is one of distance, and may be above what any two tokens cost
    check_claims(Says(Guarantee(Kind.METRIC, 9.0, **METRIC), Certificate(1.0), pure_event(1.0)))
    check_claims(Says(Guarantee.none("for comparison", **LOCAL), Certificate(math.inf), none_event()))


WRONG = {
    "too few": lambda ids: np.zeros(1, dtype=np.int64),
    "another shape": lambda ids: ids[:, None],
    "fractions": lambda ids: ids + 0.5,
    "truth values": lambda ids: ids > 3,
    "a list": lambda ids: ids.tolist(),
    "below": lambda ids: ids * 0 - 1,
    "beyond": lambda ids: ids * 0 + V,
}


@pytest.mark.parametrize("draws", WRONG.values(), ids=WRONG)
def test_draws_that_are_no_rows_are_refused_and_not_kept(tmp_path, draws):
    class Astray(Toy):
        def sample_ids(self, ids):
            return draws(ids)

    made = Astray(VOCABULARY.vectors, 1.0)
    typed = ByTokenType([made, made], np.arange(V) % 2)
    for use in (
        lambda: drawn_by(made, np.arange(4)),
        lambda: TextPrivatiser(VOCABULARY, made, k_max=3).draw(["the visit"]),
        lambda: typed.sample_ids(np.arange(4)),
    ):
        with pytest.raises(RefusedInput, match=r"whole number must be drawn for each|draws must be rows in \[0, 17\)"):
            use()
    records = [Record("r1", "the visit")]
    with pytest.raises(RefusedInput, match="correct its sample_ids"):
        TextPrivatiser(VOCABULARY, made, k_max=3).release(records, tmp_path / "store", privacy(ledger(size=1), 1))
    assert (tmp_path / "store" / "texts.jsonl").read_bytes() == b""


def test_draws_of_any_width_are_taken():
    class Narrow(Toy):
        def sample_ids(self, ids):
            return super().sample_ids(ids).astype(np.uint8)

    assert drawn_by(Narrow(VOCABULARY.vectors, 1.0), np.arange(5)).dtype == np.int64
