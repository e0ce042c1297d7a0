"""What a site keeps: round trips, replacement, sharing between seeds, crashes half-way."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.contracts import Adapter, Model, Outcome, SoftPrompt, Texts
from privkt.privacy import Guarantee, Kind, Provenance, RefusedInput, Release
from privkt.privacy.events import poisson_gaussian_event
from privkt.runtime.errors import Damaged
from privkt.runtime.state import DiskState

TABLE = Texts(("a", "b"), ("x", "y"), {"topic": ("1", "2")})
ADAPTER = Adapter({"adapter_config.json": b"{}", "adapter_model.safetensors": b"raw", "README.md": b"kept here"})


@pytest.fixture
def state(tmp_path):
    return DiskState(tmp_path / "state")


@pytest.mark.parametrize(
    "value",
    [
        TABLE,
        Texts(()),
        ADAPTER,
        SoftPrompt(dict(ADAPTER.files)),
        Outcome({"arm": {"accuracy": 0.5}}, {"unparsed": 3, "list": [1, None]}),
        Outcome(model=ADAPTER),
    ],
)
def test_messages_come_back_equal(state, value):
    state.save("one", value)
    assert state.load("one") == value
    assert "one" in state


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=30)
@given(first=st.lists(text, max_size=4), second=st.lists(text, max_size=4))
def test_the_same_name_replaces(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("s") / "state"
    state = DiskState(folder)
    for rows in (first, second):
        state.save("rows", Texts(tuple(rows)))
    assert state.load("rows") == Texts(tuple(second))
    assert len(list(folder.iterdir())) == 2  # one record, one payload


def test_models_are_copied(state, tmp_path):
    source = tmp_path / "model"
    (source / "inner").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "inner" / "weights").write_bytes(b"w")
    state.save("model", Model(source))
    (source / "config.json").write_text("changed")
    kept = state.load("model")
    assert kept.folder != source
    assert (kept.folder / "config.json").read_text() == "{}"
    assert (kept.folder / "inner" / "weights").read_bytes() == b"w"
    state.save("model", Model(kept.folder))
    assert (state.load("model").folder / "config.json").read_text() == "{}"


def test_releases_keep_everything(state):
    release = Release(
        TABLE,
        Guarantee(Kind.APPROXIMATE, 2.81, 1e-5, replace_one_epsilon=5.64, conditional_on=("N = 7",)),
        poisson_gaussian_event(1.1, 0.25, 7),
        Provenance("dp-sgd", "1", "d1", {"steps": 7}),
        charge="c1",
    )
    state.save_release("out", release)
    assert state.load_release("out") == release
    plain = Release(ADAPTER, release.guarantee, release.event, release.provenance)
    state.save_release("out", plain)
    assert state.load_release("out") == plain


def test_json_and_messages_have_their_own_names(state):
    state.save("x", TABLE)
    state.save_json("x", {"n": 1})
    assert state.load_json("x") == {"n": 1}
    assert state.load("x") == TABLE
    assert state.names() == ("x",)


def test_a_seed_sees_what_is_shared_and_hides_it_from_others(tmp_path):
    shared = DiskState(tmp_path / "shared")
    shared.save("texts", TABLE)
    one, two = (DiskState(tmp_path / f"seed-{i}", shared) for i in (1, 2))
    assert one.load("texts") == TABLE
    one.save("texts", Texts(("mine",)))
    assert one.load("texts") == Texts(("mine",))
    assert two.load("texts") == shared.load("texts") == TABLE
    assert "texts" in two


def test_absent_names_say_what_there_is(state):
    state.save_json("plan", 1)
    with pytest.raises(KeyError, match="no message 'texts'; it has plan"):
        state.load("texts")


def test_other_types_and_names_are_refused(state):
    with pytest.raises(TypeError, match="got dict; use save_json"):
        state.save("x", {"a": 1})
    for name in ("", "../x", "a/b", ".hidden", "x" * 151):
        with pytest.raises(RefusedInput, match="state name"):
            state.save_json(name, 1)


def test_files_are_private(state):
    state.save("model", ADAPTER)
    for path in [state.folder, *state.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_full_disk_keeps_the_old_value(state, monkeypatch):
    state.save("texts", TABLE)
    real, room = os.write, [10]

    def write(handle, data):
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        n = real(handle, bytes(data)[: room[0]])
        room[0] -= n
        return n

    for space in (0, 10, 900):
        room[0] = space
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(OSError, match="No space"):
                state.save("texts", Texts(("new",) * 100))
        assert state.load("texts") == TABLE
    assert not list(state.folder.glob(".*"))


def test_damaged_payloads_are_refused_by_name(state):
    state.save("texts", TABLE)
    (payload,) = state.folder.glob("*.arrow")
    payload.write_bytes(payload.read_bytes()[:-20])
    with pytest.raises(Damaged, match=r"state: what is stored as texts\..*\.arrow is damaged"):
        state.load("texts")
