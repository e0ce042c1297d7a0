"""Texts into noisy texts: what is drawn, what is remembered, what is charged."""

import math
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tokens import Toy, ledger, privacy, vocabulary

from privkt.privacy import (
    BudgetExceeded,
    DataChanged,
    Guarantee,
    Kind,
    Neighbouring,
    PrivacyError,
    RefusedInput,
    Unit,
    document_cost,
    private_access_locked,
)
from privkt.privacy.errors import ChargeConflict, PrivateAccessLocked
from privkt.synthesis.privatiser import LENGTH, Record, TextPrivatiser

VOCABULARY = vocabulary()
RECORDS = [Record("r1", "the visit was cold"), Record("r2", "the visit was cold"), Record("r3", "")]


def privatiser(epsilon=2.0, k_max=6, **more):
    return TextPrivatiser(VOCABULARY, Toy(VOCABULARY.vectors, epsilon), k_max=k_max, **more)


@settings(max_examples=60)
@given(text=st.text(max_size=50), k_max=st.integers(1, 9))
def test_every_document_gives_the_mechanism_k_max_rows(text, k_max):
    made = privatiser(k_max=k_max)
    (drawn,) = made.draw([text])
    (asked,) = made.mechanisms[0].calls
    assert len(asked) == len(drawn.ids) == k_max
    assert asked.tolist() == made.inputs(text).tolist()
    assert drawn.text == VOCABULARY.decode(drawn.ids)


def test_no_token_passes_the_mechanism():
    """With a law that never answers, nothing of the text is left, whatever was in it."""

    class Silent(Toy):
        def sample_ids(self, ids):
            return np.full_like(ids, VOCABULARY.padding)

    made = TextPrivatiser(VOCABULARY, Silent(VOCABULARY.vectors, 1.0), k_max=8)
    assert [one.text for one in made.draw(["Anna 1 2 3 <unk> zebra", "", "\x00 [PAD]"])] == ["", "", ""]


def test_padding_and_cutting():
    made = privatiser(k_max=3)
    pad = VOCABULARY.padding
    assert made.inputs("the").tolist() == [1, pad, pad]
    assert made.inputs("the visit was cold").tolist() == [1, 2, 3]
    exposed = privatiser(k_max=3, padded=False)
    assert exposed.inputs("the").tolist() == [1]
    assert [len(one.ids) for one in exposed.draw(["the", "", "a a a a a"])] == [1, 0, 3]
    assert exposed.cost().guarantee.conditional_on == (LENGTH,)
    assert exposed.cost().guarantee.epsilon == made.cost().guarantee.epsilon


def test_a_document_costs_the_sum_of_its_positions():
    made = privatiser(2.0, k_max=6)
    one = made.mechanisms[0].certificate
    assert made.cost().guarantee.kind is Kind.PURE
    assert made.cost().guarantee.epsilon == pytest.approx(6 * one.epsilon, rel=1e-12)
    assert made.cost().guarantee.epsilon >= 6 * one.epsilon
    small = privatiser(0.1, k_max=64)
    together = small.cost(1e-5)
    assert together == document_cost(small.mechanisms[0].certificate, 64, delta=1e-5, proof="a toy")
    assert together.guarantee.epsilon < small.cost().guarantee.epsilon / 2
    low, high = Toy(VOCABULARY.vectors, 1.0), Toy(VOCABULARY.vectors, 4.0)
    mixed = TextPrivatiser(VOCABULARY, [low, high, low], k_max=3)
    expected = math.fsum([low.certificate.epsilon, high.certificate.epsilon, low.certificate.epsilon])
    assert mixed.cost().guarantee.epsilon == pytest.approx(expected, rel=1e-12)
    mixed.draw(["a the visit", "was"])
    assert [len(calls) for calls in (low.calls[0], high.calls[0])] == [4, 2]
    assert high.calls[0].tolist() == [1, VOCABULARY.padding]


def test_a_promise_for_any_two_texts_is_restated_but_not_for_another_number_of_texts():
    made = privatiser()
    local, emptied = made.cost().guarantee, made.cost(neighbouring=Neighbouring.ZERO_OUT).guarantee
    assert emptied.epsilon == emptied.replace_one_epsilon == local.epsilon
    assert made.cost(unit=Unit.DOCUMENT).guarantee.unit is Unit.DOCUMENT
    with pytest.raises(RefusedInput, match="does not hide how many"):
        made.cost(neighbouring=Neighbouring.ADD_REMOVE)


@pytest.mark.parametrize("unit", [Unit.USER, Unit.TOKEN])
def test_a_document_s_price_is_not_that_of_a_person_or_a_token(tmp_path, unit):
    with pytest.raises(RefusedInput, match=f"what is priced is one text, got unit {unit}; state it for record or docu"):
        privatiser().cost(unit=unit)
    made, book = privatiser(), ledger(unit=unit)
    with pytest.raises(RefusedInput, match="a user pays for each text"):
        made.release(RECORDS, tmp_path / "store", privacy(book, 3))
    assert made.mechanisms[0].calls == []
    assert book.charges() == ()
    assert not (tmp_path / "store").exists()


def test_a_release_is_charged_once_and_gives_the_stored_bytes_again(tmp_path):
    book = ledger()
    made = privatiser()
    first = made.release(RECORDS, tmp_path / "store", privacy(book, 3))
    assert len(made.mechanisms[0].calls) == 1
    again = privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    assert again == first
    assert [e.kind for e in book.entries()] == ["opened", "charge", "stored"]
    assert book.spent().epsilon == first.guarantee.epsilon == made.cost(1e-3).guarantee.epsilon
    assert first.charge == book.charges()[0].id
    assert first.provenance.data_set_id == book.data_set_id
    assert first.guarantee == book.charges()[0].planned
    shuffled = privatiser().release(RECORDS[::-1], tmp_path / "store", privacy(book, 3))
    assert shuffled.payload.text == first.payload.text[::-1]


def test_equal_texts_of_two_records_draw_independently():
    """Statistics: 400 pairs of equal texts; the law keeps a token with chance p, so a pair agrees with its law's
    collision chance c. Chance of 3.2 standard deviations or more beyond the bound below: under 1e-6 by Hoeffding."""
    made = privatiser(3.0, k_max=1)
    drawn = made.draw(["cold"] * 800)
    row = made.mechanisms[0].probabilities(np.asarray([4]))[0]
    agree = np.mean([a.ids == b.ids for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    slack = math.sqrt(math.log(2 / 1e-6) / (2 * 400))
    assert abs(agree - (row**2).sum()) <= slack
    assert len(Counter(one.ids for one in drawn)) > 5


def test_a_record_with_another_text_is_refused(tmp_path):
    book = ledger()
    privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    changed = [Record("r1", "the visit was warm"), *RECORDS[1:]]
    with pytest.raises(DataChanged, match="one changed; restore the data, or draw anew elsewhere") as refused:
        privatiser().release(changed, tmp_path / "store", privacy(book, 3))
    assert "warm" not in str(refused.value)
    with pytest.raises(DataChanged, match="its fingerprint differs"):
        privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3, rows=(b"others",)))


@pytest.mark.parametrize(
    "others",
    [
        [Record("x1", "the visit was cold"), *RECORDS[1:]],
        [*RECORDS, Record("r4", "a kind visit")],
        RECORDS[:2],
    ],
    ids=["another id", "one more", "one less"],
)
def test_a_charge_pays_for_the_records_that_it_began_with(tmp_path, others):
    """Equal rows under other ids have the same fingerprint, and would be drawn twice for one charge."""
    book = ledger()
    privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    made = privatiser()
    with pytest.raises(DataChanged, match="pays for one draw of each record that it began with"):
        made.release(others, tmp_path / "store", privacy(book, 3))
    assert made.mechanisms[0].calls == []


def test_a_store_that_lost_its_draws_draws_none(tmp_path):
    book = ledger()
    privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    (tmp_path / "store" / "texts.jsonl").unlink()
    made = privatiser()
    with pytest.raises(PrivacyError, match=r"texts\.jsonl is damaged"):
        made.release(RECORDS, tmp_path / "store", privacy(book, 3))
    assert made.mechanisms[0].calls == []


@pytest.mark.parametrize("lost", ["all draws", "the last draw", "draws and records"])
def test_a_copy_of_a_store_is_not_drawn_again_for_the_same_charge(tmp_path, lost):
    """What its owner can do to a copy: take draws out, so that they would be made anew, free of charge."""
    book = ledger()
    first = privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    copied = shutil.copytree(tmp_path / "store", tmp_path / "copy")
    lines = (copied / "texts.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "texts.jsonl").write_bytes(b"".join(lines[:2]) if lost == "the last draw" else b"")
    if lost == "draws and records":
        (copied / "records.json").unlink()
    made = privatiser()
    with pytest.raises(ChargeConflict, match="one charge pays for one set of draws") as refused:
        made.release(RECORDS, copied, privacy(book, 3))
    assert "or lacks some; use the store that was finished" in str(refused.value)
    assert made.mechanisms[0].calls == []
    assert len(book.charges()) == 1
    whole = shutil.copytree(tmp_path / "store", tmp_path / "whole")
    assert privatiser().release(RECORDS, whole, privacy(book, 3)) == first


def test_of_two_copies_of_an_unfinished_store_one_is_finished(tmp_path):
    """Both are begun before either ends, as two processes would: only the ledger can tell."""
    book = ledger()
    records = [Record(str(i), "the visit was cold") for i in range(20)]  # the chance of equal draws is below 1e-20

    class Copied(Toy):
        def sample_ids(self, ids):
            shutil.copytree(tmp_path / "store", tmp_path / "copy")
            made.append(privatiser(k_max=6).release(records, tmp_path / "copy", privacy(book, 20)))
            return super().sample_ids(ids)

    made = []
    late = TextPrivatiser(VOCABULARY, Copied(VOCABULARY.vectors, 2.0), k_max=6)
    with pytest.raises(ChargeConflict, match="one charge yields one final payload"):
        late.release(records, tmp_path / "store", privacy(book, 20))
    assert len(made) == 1
    with pytest.raises(ChargeConflict, match="holds others than its charge was finished with"):
        privatiser(k_max=6).release(records, tmp_path / "store", privacy(book, 20))


def test_a_header_that_was_cut_short_leaves_a_folder_that_counts_as_empty(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / ".store.json.ab12cd34.tmp").write_bytes(b'{"for')
    privatiser().release(RECORDS, store, privacy(ledger(), 3))
    for place, name in (("one", "notes.txt"), ("two", ".store.json.tmp"), ("three", ".records.json.ab12cd34.tmp")):
        other = tmp_path / place
        other.mkdir()
        (other / ".store.json.ab12cd34.tmp").write_bytes(b"")
        (other / name).write_bytes(b"")
        with pytest.raises(RefusedInput, match="must be new or empty"):
            privatiser().release(RECORDS, other, privacy(ledger(), 3))


@pytest.mark.parametrize(
    ("other", "key"), [({"epsilon": 3.0}, "mechanism"), ({"k_max": 7}, "k_max"), ({"padded": False}, "padded")]
)
def test_a_store_has_one_set_of_settings(tmp_path, other, key):
    book = ledger()
    privatiser().release(RECORDS, tmp_path / "store", privacy(book, 3))
    with pytest.raises(ChargeConflict, match=f"one set of settings, and {key} differs"):
        privatiser(**other).release(RECORDS, tmp_path / "store", privacy(book, 3))
    assert len(book.charges()) == 1


def test_another_store_is_another_spend(tmp_path):
    book = ledger()
    one = privatiser().release(RECORDS, tmp_path / "one", privacy(book, 3))
    privatiser().release(RECORDS, tmp_path / "two", privacy(book, 3))
    assert book.spent().epsilon == pytest.approx(2 * one.guarantee.epsilon)


def test_what_does_not_fit_is_refused_before_anything_is_drawn(tmp_path):
    made = privatiser()
    with pytest.raises(BudgetExceeded, match="left epsilon = 1"):
        made.release(RECORDS, tmp_path / "store", privacy(ledger(cap=1.0), 3))
    with pytest.raises(BudgetExceeded, match="a document must cost no more than the budget of epsilon = 2"):
        made.release(RECORDS, tmp_path / "store", privacy(ledger("other"), 3, epsilon=2.0))
    assert made.mechanisms[0].calls == []
    assert not (tmp_path / "store").exists()
    with pytest.raises(RefusedInput, match="an id repeats"):
        made.release([RECORDS[0], RECORDS[0]], tmp_path / "store", privacy(ledger(), 3))


def test_kept_words_promise_nothing(tmp_path):
    made = privatiser(0.5, keep=("cold", "Anna"))
    assert not made.cost(1e-3).guarantee.is_private
    for one in made.draw(["cold cold cold"] * 5):
        assert one.ids[:3] == (4, 4, 4)
    book = ledger()
    free = made.release(RECORDS, tmp_path / "one", privacy(book, 3))
    assert free.charge is None
    assert book.charges() == ()
    forced = made.release(RECORDS, tmp_path / "two", privacy(book, 3), force=True)
    assert forced.charge is not None
    assert book.spent().infinite


def test_a_mechanism_that_promises_nothing_stays_that(tmp_path):
    class Unproven(Toy):
        @property
        def guarantee(self):
            return Guarantee.none("seeded", unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL)

    made = TextPrivatiser(VOCABULARY, Unproven(VOCABULARY.vectors, 1.0), k_max=2)
    assert str(made.cost(1e-3).guarantee).startswith("no privacy guarantee")


def test_a_locked_handle_reads_no_record(tmp_path):
    with private_access_locked(), pytest.raises(PrivateAccessLocked):
        privatiser().release(RECORDS, tmp_path / "store", privacy(ledger(), 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: privatiser(k_max=0), "k_max must be a whole number >= 1"),
        (
            lambda: TextPrivatiser(VOCABULARY, Toy(VOCABULARY.vectors[1:], 1.0), k_max=2),
            "table of 17 rows, got one of 16",
        ),
        (lambda: TextPrivatiser(VOCABULARY, [Toy(VOCABULARY.vectors, 1.0)], k_max=2), "got 1 for k_max = 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message):
    with pytest.raises(RefusedInput, match=message):
        make()
