"""Sites in memory behave as those on disk do; exact small cases."""

import subprocess
import sys

import pytest

from privkt.contracts import Outcome, PublicFacts, Rows, Texts
from privkt.privacy import Guarantee, Provenance, RefusedInput, Release, none_event
from privkt.runtime.state import DiskState
from privkt.testing import MemoryState, client_site, server_site

RELEASE = Release(Texts(("a",)), Guarantee.none("a test"), none_event(), Provenance("m", "1", "d"))


@pytest.fixture(params=["memory", "disk"])
def state(request, tmp_path):
    return MemoryState() if request.param == "memory" else DiskState(tmp_path)


def test_what_is_saved_is_loaded(state):
    state.save("texts", Texts(("a", "b"), ("x", "y")))
    state.save("outcome", Outcome({"arm": {"accuracy": 0.5}}, {"n": 1}))
    state.save_json("values", {"a": [1, None]})
    state.save_release("release", RELEASE)
    assert state.load("texts") == Texts(("a", "b"), ("x", "y"))
    assert state.load("outcome") == Outcome({"arm": {"accuracy": 0.5}}, {"n": 1})
    assert state.load_json("values") == {"a": [1, None]}
    assert state.load_release("release") == RELEASE
    assert state.names() == ("outcome", "release", "texts", "values")
    assert "texts" in state
    assert "other" not in state


def test_what_is_missing_is_named_with_what_there_is(state):
    state.save_json("values", 1)
    for load, kind in ((state.load, "message"), (state.load_release, "release"), (state.load_json, "values")):
        with pytest.raises(KeyError, match=f"state has no {kind} 'gone'; it has values"):
            load("gone")


def test_a_name_must_fit_into_a_files_name(state):
    with pytest.raises(RefusedInput, match="state name"):
        state.save_json("two words", 1)


def test_a_release_is_no_message(state):
    with pytest.raises(TypeError, match="save_release"):
        state.save("release", RELEASE)


def test_sites_have_what_a_runtime_gives(tmp_path):
    rows = Rows(("a", "b"), ("x", "y"))
    client = client_site(rows, tmp_path / "c", evaluation=rows)
    assert client.data.load() is rows
    assert (client.data.size, client.data.labels) == (2, ("x", "y"))
    assert client.evaluation() is rows
    assert client.folder.is_dir()
    server = server_site({"c": PublicFacts("c", 2, ("x", "y"))}, tmp_path / "s")
    assert not hasattr(server, "data")


def test_without_pytest_the_error_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['hypothesis'] = None\nimport privkt.testing"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "privkt.testing needs pytest and hypothesis" in done.stderr
    assert "pip install 'privkt[testing]'" in done.stderr
