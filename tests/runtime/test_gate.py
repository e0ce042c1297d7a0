"""The gate: what may cross, in which order, and what stays whatever goes wrong."""

import json
import os

import pytest

from privkt.contracts import Adapter, Outcome, Texts
from privkt.plugins import ReleaseVetoed, hookimpl
from privkt.privacy import Guarantee, Kind, Ledger, Provenance, Release, none_event, pure_event
from privkt.runtime import gate as gates
from privkt.runtime.accounts import Account, scope_id
from privkt.runtime.errors import ReleaseRefused
from privkt.runtime.gate import Gate
from privkt.runtime.run_directory import RunDirectory
from privkt.runtime.wire import decode, digest

TEXTS = Texts(("synthetic one", "synthetic two"), ("x", "y"))
ONE = Guarantee(Kind.PURE, 1.0, replace_one_epsilon=2.0, conditional_on=("N = 6",))


class Desk:
    """A run with one open ledger, and releases that it charged."""

    def __init__(self, toys, folder, clients=("a",)):
        self.toys = toys
        self.run = RunDirectory.create(folder / "run", toys.toy_config(folder, clients=clients))
        self.accounts = {}
        for client in clients:
            ledger = Ledger.open_or_create(f"data-{client}", cap_epsilon=9, cap_delta=1e-5, size=6)
            self.accounts[client] = Account(client, ledger, client * 64, 6, False, False)

    def gate(self, *plugins, **options):
        return Gate(self.run, self.accounts, self.toys.toy_manager(*plugins), **options)

    def charge(self, client="a", purpose="p", guarantee=ONE, run_id=None, **more):
        event = none_event() if not guarantee.is_private else pure_event(guarantee.epsilon)
        run_id = run_id or scope_id(self.run.run_id, "shared")
        args = {"run_id": run_id, "purpose": purpose, "fingerprint": client * 64, "declared": {}, **more}
        return self.accounts[client].ledger.charge(event, guarantee, **args).id

    def release(self, payload=TEXTS, *, client="a", guarantee=ONE, charge="new", data_set_id=None, purpose="p"):
        charge = self.charge(client, purpose) if charge == "new" else charge
        known = self.accounts[client].ledger.data_set_id
        provenance = Provenance("toy", "1", data_set_id or known, {"path": "/home/canary"})
        return Release(payload, guarantee, pure_event(1.0), provenance, charge)

    def crossed(self):
        return sorted(str(p.relative_to(self.run.outbound)) for p in self.run.outbound.rglob("*.*"))


@pytest.fixture
def desk(toys, tmp_path):
    return Desk(toys, tmp_path)


def test_what_crosses_is_on_disk_recorded_and_sent(desk):
    release = desk.release()
    data = desk.gate().send("a", "publish", release, seed=3)
    assert decode(data) == TEXTS
    assert (desk.run.outbound / "a" / "publish.seed-3.arrow").read_bytes() == data
    status = desk.accounts["a"].ledger.status(release.charge)
    assert status.state == "sent"
    assert status.sent == {"publish.seed-3": digest(data)}
    (row,) = desk.gate().manifest()
    assert row.sha256 == digest(data)
    assert (row.rows, row.size_bytes, row.message, row.scope) == (2, len(data), "texts", "seed-3")
    assert desk.run.heads()["data-a"] == desk.accounts["a"].ledger.head()
    assert list((desk.run.private / "pending" / "a").glob("*.arrow")) == []


def test_the_card_tells_the_guarantee_and_nothing_private(desk):
    release = desk.release()
    desk.gate().send("a", "publish", release)
    card = json.loads((desk.run.outbound / "cards" / f"a.{release.charge}.json").read_text())
    assert Guarantee.from_json(card["guarantee"]) == ONE
    assert card["replace_one_epsilon"] == 2.0
    assert card["planned"] == [{"mechanism": "pure", "epsilon_of_each": 1.0, "steps": 1, "delta": 0.0, "epsilon": 1.0}]
    assert card["data_set_id"] == desk.accounts["a"].ledger.data_set_id
    assert card["conditional_on"] == ["N = 6"]
    assert card["size"] == 6
    assert [c["step"] for c in card["crossed"]] == ["publish"]
    page = (desk.run.outbound / "cards" / f"a.{release.charge}.md").read_text()
    assert str(ONE) in page
    everything = b"".join(p.read_bytes() for p in desk.run.outbound.rglob("*.*"))
    for private in (b"canary", b"a" * 64, b"taken", desk.run.run_id.encode()):
        assert private not in everything


def test_one_card_gathers_every_crossing_of_its_charge(desk):
    release = desk.release()
    for seed in (1, 2):
        desk.gate().send("a", "publish", release, seed=seed)
    (card,) = (desk.run.outbound / "cards").glob("*.json")
    assert [c["scope"] for c in json.loads(card.read_text())["crossed"]] == ["seed-1", "seed-2"]


@pytest.mark.parametrize("message", [Outcome(), TEXTS, {"text": "x"}, None])
def test_only_releases_cross(desk, message):
    with pytest.raises(ReleaseRefused, match="only a Release crosses"):
        desk.gate().send("a", "learn", message)
    assert desk.crossed() == []


def test_the_charge_must_be_this_runs_and_this_clients(toys, tmp_path):
    desk = Desk(toys, tmp_path, ("a", "b"))
    gate = desk.gate()
    with pytest.raises(ReleaseRefused, match="must carry the charge"):
        gate.send("a", "publish", desk.release(charge=None))
    with pytest.raises(ReleaseRefused, match="belongs to a charge of this ledger"):
        gate.send("a", "publish", desk.release(charge=desk.charge("b")))
    with pytest.raises(ReleaseRefused, match="another run or seed"):
        gate.send("a", "publish", desk.release(charge=desk.charge(run_id="other")))
    one = desk.charge(run_id=scope_id(desk.run.run_id, "seed-1"))
    with pytest.raises(ReleaseRefused, match="another run or seed"):
        gate.send("a", "publish", desk.release(charge=one), seed=2)
    with pytest.raises(ReleaseRefused, match="must promise what was charged"):
        gate.send("a", "publish", desk.release(guarantee=Guarantee(Kind.PURE, 0.5), purpose="q"))
    with pytest.raises(ReleaseRefused, match="random id of its data set"):
        gate.send("a", "publish", desk.release(data_set_id="reviews of Dr Canary", purpose="r"))
    assert desk.crossed() == []


def test_undeclared_columns_and_odd_adapters_do_not_cross(desk):
    table = Texts(("s",), None, {"source_row": ("17",)})
    with pytest.raises(ReleaseRefused, match="column 'source_row' may not cross"):
        desk.gate().send("a", "publish", desk.release(table))
    adapter = Adapter({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x", "optimizer.pt": b"x"})
    with pytest.raises(ReleaseRefused, match=r"file 'optimizer\.pt' may not cross"):
        desk.gate().send("a", "publish", desk.release(adapter, purpose="q"))
    data = desk.gate(columns=["source_row"]).send("a", "publish", desk.release(table, purpose="r"))
    assert decode(data) == table
    assert desk.crossed()[0] == "a/publish.shared.arrow"


NONE = Guarantee.none("raw text")


def unprotected(desk):
    return desk.release(guarantee=NONE, charge=None)


def test_kind_none_is_refused_for_remote_receivers(desk):
    with pytest.raises(ReleaseRefused, match="leaves only to models of this process or from data declared public"):
        desk.gate().send("a", "publish", unprotected(desk))
    assert desk.crossed() == []
    assert not desk.accounts["a"].ledger.spent().infinite


def test_kind_none_stays_in_this_process(desk):
    data = desk.gate(in_process=True).send("a", "publish", unprotected(desk))
    assert decode(data) == TEXTS
    assert desk.crossed() == []
    assert (desk.run.private / "unprotected" / "a" / "publish.shared.arrow").read_bytes() == data
    assert not desk.accounts["a"].ledger.spent().infinite


def test_public_data_may_leave_without_a_charge(desk):
    account = desk.accounts["a"]
    desk.accounts["a"] = Account("a", account.ledger, account.fingerprint, 6, False, True)
    desk.gate().send("a", "publish", unprotected(desk))
    assert desk.crossed() == ["a/publish.shared.arrow", "manifest.jsonl"]
    assert not account.ledger.spent().infinite


def test_forced_kind_none_is_an_infinite_spend(desk):
    desk.gate(force=True).send("a", "publish", unprotected(desk))
    desk.gate(force=True).send("a", "publish", unprotected(desk))
    ledger = desk.accounts["a"].ledger
    assert ledger.spent().infinite
    assert len(ledger.charges()) == 1
    assert "epsilon = inf" in ledger.statement()
    assert desk.gate().manifest()[0].guarantee["kind"] == "none"


def test_a_reviewer_sees_the_decoded_bytes_and_may_say_no(desk):
    release, shown = desk.release(), []

    def no(summary, message):
        shown.append((summary, message))
        return False

    with pytest.raises(ReleaseRefused, match="the reviewer said no, and nothing crossed; the spend stays"):
        desk.gate(review=no).send("a", "publish", release)
    ((summary, message),) = shown
    assert message == TEXTS
    assert (summary.rows, summary.guarantee) == (2, str(ONE))
    assert desk.crossed() == []
    ledger = desk.accounts["a"].ledger
    assert (ledger.spent().epsilon, ledger.status(release.charge).state) == (1.0, "stored")
    assert desk.run.events()[-1]["event"] == "review said no"
    desk.gate(review=lambda summary, message: True).send("a", "publish", release)
    assert ledger.status(release.charge).state == "sent"


class Veto:
    def __init__(self, error):
        self.error, self.seen = error, []

    @hookimpl
    def privkt_before_release(self, summary):
        self.seen.append(summary)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [ReleaseVetoed("not on a Sunday"), ZeroDivisionError("canary")])
def test_hooks_veto_and_broken_hooks_do_too(desk, error):
    release = desk.release()
    with pytest.raises(ReleaseRefused, match="the spend stays") as caught:
        desk.gate(Veto(error)).send("a", "publish", release)
    assert "canary" not in str(caught.value)
    assert desk.crossed() == []
    agreeing = Veto(None)
    desk.gate(agreeing).send("a", "publish", release)
    assert [s.step for s in agreeing.seen] == ["publish"]
    assert not hasattr(agreeing.seen[0], "payload")


def test_what_crossed_is_sent_again_without_asking_or_drawing(desk):
    release = desk.release()
    first = desk.gate().send("a", "publish", release)
    hook = Veto(ReleaseVetoed("too late"))
    assert desk.gate(hook, review=lambda s, m: False).send("a", "publish", release) == first
    assert hook.seen == []
    again = desk.release(Texts(("another draw",)), charge=release.charge)
    assert desk.gate().send("a", "publish", again) == first
    assert len(desk.gate().manifest()) == 1


def test_another_draw_never_replaces_lost_bytes(desk):
    release = desk.release()
    first = desk.gate().send("a", "publish", release)
    path = desk.run.outbound / "a" / "publish.shared.arrow"
    path.unlink()
    with pytest.raises(ReleaseRefused, match=r"the new draw for a, step publish .* is not what was noted"):
        desk.gate().send("a", "publish", desk.release(Texts(("another draw",)), charge=release.charge))
    assert desk.gate().send("a", "publish", release) == first


@pytest.mark.parametrize("place", ["outbound", "note", "ledger"])
def test_tampered_bytes_are_refused(desk, place):
    release = desk.release()
    desk.gate().send("a", "publish", release)
    path = desk.run.outbound / "a" / "publish.shared.arrow"
    path.write_bytes(path.read_bytes().replace(b"synthetic", b"realistic"))
    note = desk.run.private / "pending" / "a" / "publish.shared.json"
    if place == "note":
        note.unlink()
    if place == "ledger":
        note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": digest(path.read_bytes())}))
    rule = {"outbound": "is not what was noted", "note": "without a note", "ledger": "one charge yields one final"}
    with pytest.raises(ReleaseRefused, match=rule[place]):
        desk.gate().send("a", "publish", release)


class Crash(BaseException):
    """Like a kill: nothing may catch it."""


@pytest.mark.parametrize("at", range(1, 10))
def test_a_crash_at_any_write_sends_the_first_bytes(desk, monkeypatch, at):
    """Counts every durable act of the gate, dies after the `at`-th, and sends again with another draw at hand."""
    release = desk.release()
    ledger_class = type(desk.accounts["a"].ledger)
    left = [at]

    def counted(real):
        def act(*args, **kwargs):
            result = real(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return result

        return act

    with monkeypatch.context() as patch:
        for name in ("write_file", "write_json"):
            patch.setattr(gates, name, counted(getattr(gates, name)))
        for name in ("stored", "sent"):
            patch.setattr(ledger_class, name, counted(getattr(ledger_class, name)))
        if at < 9:
            with pytest.raises(Crash):
                desk.gate().send("a", "publish", release)
        else:  # there are eight such acts
            desk.gate().send("a", "publish", release)
    seen = {p.name: p.read_bytes() for p in desk.run.outbound.rglob("*.arrow")}
    data = desk.gate().send("a", "publish", release)
    assert decode(data) == TEXTS
    assert all(value == data for value in seen.values())
    assert len(desk.gate().manifest()) == 1
    status = desk.accounts["a"].ledger.status(release.charge)
    assert status.sent == {"publish.shared": digest(data)}


def test_a_full_disk_lets_nothing_out(desk, monkeypatch):
    release, real = desk.release(), os.write

    def full(handle, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            desk.gate().send("a", "publish", release)
    assert os.write is real
    assert desk.crossed() == []
    assert decode(desk.gate().send("a", "publish", release)) == TEXTS
