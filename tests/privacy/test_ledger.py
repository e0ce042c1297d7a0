import os
import stat
from fractions import Fraction

import dp_accounting as dpa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privkt.privacy import (
    BudgetExceeded,
    ChargeConflict,
    DataChanged,
    Guarantee,
    Kind,
    Ledger,
    LedgerMismatch,
    LedgerMissing,
    RefusedInput,
    SameDataElsewhere,
    UnderstatedGuarantee,
    UnprotectedRelease,
    calibrate_noise,
    epsilon,
    none_event,
    poisson_gaussian_event,
    pure_event,
    replace_one_epsilon,
)
from privkt.privacy._store import Store
from privkt.privacy.state import ledger_path

ONE, OTHER = "1" * 64, "2" * 64


def make(state, name="reviews", cap=8.0, **other):
    return Ledger.open_or_create(name, cap_epsilon=cap, cap_delta=1e-5, size=1000, state=state, **other)


def spend(ledger, eps=1.0, run="run-1", purpose="train", data="data-1", **other):
    guarantee = Guarantee(Kind.PURE, eps)
    declared = {"steps": 3, **other.pop("declared", {})}
    return ledger.charge(
        pure_event(eps), guarantee, run_id=run, purpose=purpose, fingerprint=data, declared=declared, **other
    )


def test_a_charge_is_planned_spent_and_left(tmp_path):
    ledger = make(tmp_path)
    charge = spend(ledger, 2.5)
    assert charge.planned == Guarantee(Kind.PURE, 2.5)
    assert [found.id for found in ledger.charges()] == [charge.id]
    assert (ledger.spent().epsilon, ledger.spent().delta, ledger.spent().infinite) == (2.5, 0.0, False)
    assert (ledger.left().epsilon, ledger.left().delta) == (5.5, 1e-5)
    assert (ledger.cap.epsilon, ledger.size, ledger.filter) == (8.0, 1000, "basic")
    assert ledger.statement() == (
        "data set reviews: spent epsilon = 2.5, delta = 0 by the basic filter, of a cap of epsilon = 8, "
        "delta = 1e-5 (record level, zero-out, 1 charge)"
    )


def test_the_file_is_for_its_owner_alone_and_found_again(tmp_path):
    ledger = make(tmp_path)
    spend(ledger)
    assert ledger.path == tmp_path / "ledgers" / "reviews.sqlite3"
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    for again in (Ledger.open("reviews", state=tmp_path), Ledger.open(ledger.path), make(tmp_path)):
        assert again.head() == ledger.head()
        assert again.data_set_id == ledger.data_set_id


def test_the_state_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "here"))
    assert make(None).path.is_relative_to(tmp_path / "here")


def test_the_cap_refuses_and_says_left_and_asked(tmp_path):
    ledger = make(tmp_path)
    spend(ledger, 7.0)
    with pytest.raises(BudgetExceeded, match="asked epsilon = 2, delta = 0, left epsilon = 1, delta = 1e-5") as error:
        spend(ledger, 2.0, run="run-2")
    assert "raise the cap of epsilon: `privkt budget raise reviews --epsilon E --reason WHY`" in str(error.value)
    assert (error.value.left, error.value.asked) == ((1.0, 1e-5), (2.0, 0.0))
    assert len(ledger.charges()) == 1
    assert isinstance(ledger.would_refuse(pure_event(2.0), Guarantee(Kind.PURE, 2.0)), BudgetExceeded)
    assert ledger.would_refuse(pure_event(1.0), Guarantee(Kind.PURE, 1.0)) is None
    spend(ledger, 1.0, run="run-2")
    assert ledger.left().epsilon == 0


@pytest.mark.parametrize(
    ("epsilon", "delta", "said"),
    [
        (9.0, 1e-5, "epsilon: `privkt budget raise reviews --epsilon E --reason WHY`"),
        (1.0, 2e-5, "delta: `privkt budget raise reviews --epsilon 8.25 --delta D --reason WHY`"),
        (9.0, 2e-5, "both: `privkt budget raise reviews --epsilon E --delta D --reason WHY`"),
    ],
)
def test_a_full_ledger_names_what_is_short_alone(tmp_path, epsilon, delta, said):
    ledger = make(tmp_path, cap=8.25)
    refusal = ledger.would_refuse(pure_event(epsilon), Guarantee(Kind.APPROXIMATE, epsilon, delta))
    assert str(refusal).endswith(f"raise the cap of {said}")


def test_the_cap_is_raised_only_by_an_entry_with_a_reason(tmp_path):
    ledger = make(tmp_path, cap=1.0)
    assert make(tmp_path, cap=100.0).cap.epsilon == 1.0
    for bad in ((2.0, 1e-6), (1.0, 1e-5), (0.5, 2e-5)):
        with pytest.raises(RefusedInput, match="a cap is only raised; it is epsilon = 1, delta = 1e-05, got"):
            ledger.raise_cap(*bad, "why")
    with pytest.raises(RefusedInput, match="raised with a reason, which stays on record, got none"):
        ledger.raise_cap(2.0, 1e-5, " ")
    ledger.raise_cap(2.0, 1e-5, "second study, approved")
    assert ledger.cap.epsilon == 2.0
    assert ledger.entries()[-1].body["reason"] == "second study, approved"
    spend(ledger, 2.0)


@pytest.mark.parametrize("other", [{"unit": "user"}, {"neighbouring": "replace-one"}, {"filter": "zcdp"}])
def test_another_unit_relation_or_filter_is_refused(tmp_path, other):
    make(tmp_path)
    with pytest.raises(LedgerMismatch, match=f"{next(iter(other))} stays what it was made with"):
        make(tmp_path, **other)
    make(tmp_path)


def test_a_guarantee_of_another_unit_or_relation_is_refused(tmp_path):
    ledger = make(tmp_path)
    for other in ({"unit": "token"}, {"neighbouring": "local"}):
        with pytest.raises(LedgerMismatch, match="or convert the guarantee upwards"):
            ledger.charge(
                pure_event(1.0),
                Guarantee(Kind.PURE, 1.0, **other),
                run_id="r",
                purpose="p",
                fingerprint="f",
                declared={},
            )
    assert ledger.charges() == ()


def test_a_guarantee_below_its_events_cost_is_refused(tmp_path):
    ledger = make(tmp_path)
    event = poisson_gaussian_event(2.0, 0.25, 16)
    honest = epsilon(event, 1e-6)
    arguments = {"run_id": "r", "purpose": "p", "fingerprint": "f", "declared": {}}
    with pytest.raises(UnderstatedGuarantee, match="must not promise less than its event costs"):
        ledger.charge(event, Guarantee(Kind.APPROXIMATE, honest * 0.99, 1e-6), **arguments)
    with pytest.raises(UnderstatedGuarantee):  # the sampler's slack leaves less delta for the event
        ledger.charge(event, Guarantee(Kind.APPROXIMATE, honest, 1e-6), slack_delta=5e-7, **arguments)
    ledger.charge(event, Guarantee(Kind.APPROXIMATE, honest, 1e-6), **arguments)


def test_changed_data_under_one_name_goes_on_with_the_same_account(tmp_path):
    ledger = make(tmp_path)
    spend(ledger, 3.0)
    with pytest.raises(DataChanged, match="or say --data-changed, which keeps what is spent"):
        spend(ledger, 1.0, run="run-2", data="data-2")
    spend(ledger, 1.0, run="run-2", data="data-2", data_changed=True)
    assert ledger.spent().epsilon == 4.0
    with pytest.raises(DataChanged):
        spend(ledger, 1.0, run="run-3", data="data-1")
    spend(ledger, 1.0, run="run-3", data="data-2")


def test_a_new_name_for_known_data_must_be_confirmed(tmp_path):
    spend(make(tmp_path))
    other = make(tmp_path, "renamed")
    with pytest.raises(SameDataElsewhere, match="already accounted for as reviews"):
        spend(other)
    spend(other, same_data_confirmed=True)
    spend(other, run="run-2")  # known here by now


def test_a_run_is_charged_once_and_resumes_only_unchanged(tmp_path):
    ledger = make(tmp_path)
    first = spend(ledger)
    with pytest.raises(ChargeConflict, match="run run-1, purpose train was charged again"):
        spend(ledger)
    assert spend(ledger, resume=True) == first
    for other, name in (({"eps": 2.0}, "event, guarantee"), ({"declared": {"steps": 4}}, "declared")):
        with pytest.raises(ChargeConflict, match=f"was resumed with another {name}"):
            spend(ledger, resume=True, **other)
    with pytest.raises(DataChanged, match="a run resumes with the data it began with"):
        spend(ledger, resume=True, data="data-2", data_changed=True)
    assert spend(ledger, resume=True, purpose="sample").id != first.id  # nothing to resume: charged
    assert ledger.spent().epsilon == 2.0


def test_one_charge_yields_one_payload_a_name(tmp_path):
    ledger = make(tmp_path)
    charge = spend(ledger)
    assert ledger.status(charge.id).state == "reserved"
    with pytest.raises(ChargeConflict, match="only a stored payload may be sent"):
        ledger.sent(charge.id, ONE)
    assert ledger.stored(charge.id, ONE).state == "stored"
    with pytest.raises(ChargeConflict, match="one charge yields one final payload"):
        ledger.stored(charge.id, OTHER)
    with pytest.raises(ChargeConflict, match="only a stored payload may be sent"):
        ledger.sent(charge.id, OTHER)
    ledger.stored(charge.id, OTHER, name="card")
    lines = len(ledger.entries())
    ledger.stored(charge.id, ONE)
    assert len(ledger.entries()) == lines
    assert ledger.sent(charge.id, ONE).sent == {"release": ONE}
    assert ledger.sent(charge.id, ONE).state == "sent"
    assert ledger.taken(charge.id, 2).taken == 2
    assert ledger.taken(charge.id, 3).taken == 3
    assert ledger.spent().epsilon == 1.0  # fewer steps taken than planned are not credited


def test_strange_ids_and_hashes_are_refused(tmp_path):
    ledger = make(tmp_path)
    charge = spend(ledger)
    with pytest.raises(ChargeConflict, match="a payload belongs to a charge of this ledger, got the id nobody"):
        ledger.stored("nobody", ONE)
    with pytest.raises(ChargeConflict, match="belongs to a charge"):
        ledger.status("nobody")
    with pytest.raises(ChargeConflict, match="64 lower-case hex digits, got 3 characters"):
        ledger.stored(charge.id, "abc")


def test_an_unprotected_release_is_forced_and_never_forgotten(tmp_path):
    ledger = make(tmp_path)
    arguments = {"run_id": "r", "purpose": "p", "fingerprint": "f", "declared": {}}
    with pytest.raises(UnprotectedRelease, match="infinite spend and must be forced"):
        ledger.charge(none_event(), Guarantee.none("raw prompts"), **arguments)
    assert isinstance(ledger.would_refuse(none_event(), Guarantee.none("raw")), UnprotectedRelease)
    ledger.charge(none_event(), Guarantee.none("raw prompts"), force=True, **arguments)
    spend(ledger, 8.0, run="r2", data="f")
    assert ledger.spent().infinite
    assert "epsilon = inf: an unprotected release of this data set was forced" in ledger.statement()
    with pytest.raises(BudgetExceeded):
        spend(ledger, 1.0, run="r3", data="f")


def test_a_private_guarantee_cannot_hide_a_non_private_event(tmp_path):
    with pytest.raises(UnderstatedGuarantee):
        make(tmp_path).charge(
            none_event(), Guarantee(Kind.PURE, 1.0), run_id="r", purpose="p", fingerprint="f", declared={}, force=True
        )


def test_planned_is_recomputed_from_events_by_dp_accounting_alone(tmp_path):
    ledger = make(tmp_path)
    noise = calibrate_noise(4.0, 5e-6, 0.256, 16)
    event = poisson_gaussian_event(noise, 0.256, 16)
    planned = Guarantee(
        Kind.APPROXIMATE, epsilon(event, 5e-6), 5e-6, replace_one_epsilon=replace_one_epsilon(event, 5e-6)
    )
    charge = ledger.charge(event, planned, run_id="r", purpose="p", fingerprint="f", declared={"n": 1000})
    (found,) = Ledger.open(ledger.path).events()
    alone = dpa.pld.PLDAccountant().compose(found).get_epsilon(5e-6)
    assert charge.planned == planned
    assert alone == pytest.approx(planned.epsilon, rel=1e-3)
    assert alone == pytest.approx(4.0, rel=1e-3)


def test_metric_guarantees_add_up_by_their_events(tmp_path):
    ledger = make(tmp_path)
    metric = Guarantee(Kind.METRIC, 0.5, metric="L2", metric_scale=1.0)
    ledger.charge(pure_event(5.0), metric, run_id="r", purpose="p", fingerprint="f", declared={})
    assert ledger.spent().epsilon == 5.0


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"cap_epsilon": 0.0}, "epsilon must be finite and > 0, got 0.0"),
        ({"cap_epsilon": float("nan")}, "epsilon must be finite and > 0, got nan"),
        ({"cap_delta": 1.0}, r"delta must lie in \[0, 1\)"),
        ({"filter": "pld"}, "must be one of basic, zcdp, rdp, got 'pld'"),
        ({"filter": "zcdp", "cap_delta": 0.0}, "above 0 for filter zcdp"),
        ({"size": 0}, "size must be a whole number >= 1, got 0"),
    ],
)
def test_impossible_ledgers_are_refused_and_leave_no_file(tmp_path, arguments, rule):
    with pytest.raises(RefusedInput, match=rule):
        Ledger.open_or_create(
            "x", **{"cap_epsilon": 1.0, "cap_delta": 1e-5, "size": 10, "state": tmp_path, **arguments}
        )
    assert not list(tmp_path.rglob("*.sqlite3"))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "white space", "x" * 101])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(RefusedInput, match="data set name"):
        make(tmp_path, name)


def test_a_missing_ledger_is_not_made_by_opening_it(tmp_path):
    with pytest.raises(LedgerMissing, match="ledger nothing: it must exist to be opened"):
        Ledger.open("nothing", state=tmp_path)
    assert not list(tmp_path.rglob("*.sqlite3"))


def test_declared_parameters_are_plain(tmp_path):
    with pytest.raises(RefusedInput, match="declared parameters are plain JSON values"):
        spend(make(tmp_path), declared={"when": object()})


def test_fingerprints_are_keyed_and_see_boundaries(tmp_path):
    here, there = make(tmp_path / "a"), make(tmp_path / "b")
    assert here.fingerprint([b"ab", b"c"]) == here.fingerprint(iter([b"ab", b"c"]))
    assert here.fingerprint([b"ab", b"c"]) != here.fingerprint([b"a", b"bc"])
    assert here.fingerprint([b"ab", b"c"]) != there.fingerprint([b"ab", b"c"])
    secret = tmp_path / "a" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    os.truncate(secret, 5)
    with pytest.raises(RefusedInput, match="local secret: it must hold 32 bytes, got 5"):
        here.fingerprint([b"a"])


@given(st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=8))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_basic_filter_adds_what_was_written_and_never_passes_the_cap(tmp_path_factory, hundredths):
    ledger = make(tmp_path_factory.mktemp("state"))
    accepted = Fraction(0)
    for number, amount in enumerate(hundredths):
        asked = Fraction(amount, 100)
        if accepted + asked <= 8:
            spend(ledger, amount / 100, run=f"run-{number}")
            accepted += asked
        else:
            with pytest.raises(BudgetExceeded):
                spend(ledger, amount / 100, run=f"run-{number}")
    assert Fraction(str(ledger.spent().epsilon)) == accepted
    assert Fraction(str(ledger.left().epsilon)) == 8 - accepted
    ledger.verify()


def test_a_ledger_of_another_format_is_refused(tmp_path):
    path = make(tmp_path).path.with_name("newer.sqlite3")
    store = Store(path)
    store.create()
    with store.transaction() as transaction:
        transaction.append("opened", {"format": 2, "name": "newer"})
    with pytest.raises(LedgerMismatch, match="it must be of format 1, got 2; open it with its maker"):
        Ledger.open(path)


def test_a_file_whose_maker_died_is_made_again(tmp_path):
    Store(ledger_path("reviews", tmp_path)).create()
    with pytest.raises(LedgerMissing, match="it has no entry"):
        Ledger.open("reviews", state=tmp_path)
    ledger_path("other", tmp_path).touch()
    with pytest.raises(LedgerMissing, match="it has no entry"):
        Ledger.open("other", state=tmp_path)
    assert make(tmp_path).cap.epsilon == make(tmp_path, "other").cap.epsilon == 8.0
