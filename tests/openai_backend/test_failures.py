"""A server that fails: what is tried again, what ends the run, and that no text ever shows."""

from __future__ import annotations

import logging
import time
import traceback
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_openai.failures import Failure, ServerFailed, Trouble, explain, seconds_to_wait
from privkt_openai.options import Options

from privkt.contracts import BackendError, Sampling

CANARY = "canary-7351 lives in Rosenstrasse"
PASSING = ["429", "500", "502", "503", "408", "half", "html", "empty-choices", "missing-text", "wrong-type", "cut-json"]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("fault", [*PASSING, "list", "deep"])
def test_what_passes_is_waited_out(faulty, backend, fault):
    made = backend(faulty("--fault", fault, "--times", "2", "--only", "question"))
    got = made.generate(["question 1", "question 2"], Sampling())
    assert [one.text for one in got] == ["re[2]: question 1", "re[2]: question 2"]
    assert made.traffic.retries == 4
    assert made.traffic.useless == (0 if fault.isdigit() or fault == "half" else 4)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", r"must have capacity left, got status 429 after 4 attempts; wait, lower `concurrency`"),
        ("500", r"must work, got status 500 after 4 attempts; read its log"),
        ("html", r"no usable answer \(not JSON\) after 4 attempts; check that `base_url`"),
        ("empty-choices", r"no usable answer \(no choices\)"),
        ("missing-text", r"no usable answer \(a choice without text\)"),
        ("half", r"must be up, got no connection"),
        ("400", r"must take the request, got status 400 after 1 attempt; shorten the prompts"),
        ("401", r"must accept the key, got status 401 after 1 attempt; set `api_key_env`"),
        ("404", r"must serve the model 'm', got status 404 after 1 attempt"),
        ("307", r"must answer itself, got status 307 after 1 attempt; put the final address"),
    ],
)
def test_what_stays_ends_the_run_and_shows_no_text(faulty, backend, tmp_path, caplog, fault, said):
    caplog.set_level(logging.DEBUG)
    server = faulty("--fault", fault, "--only", "canary")
    made = backend(server, cache=tmp_path)
    with pytest.raises(BackendError, match=said) as caught:
        made.generate([CANARY], Sampling())
    assert server.base_url in str(caught.value)
    assert "0 of 1 answers are stored" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value, chain=True)) + caplog.text
    assert "canary-7351" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_slow_servers_run_into_the_timeout(faulty, backend):
    made = backend(faulty("--fault", "slow", "--only", "canary"), timeout=0.5, max_retries=1)
    with pytest.raises(BackendError, match=r"must come within 0.5 s, got no answer in time after 2 attempts"):
        made.generate([CANARY], Sampling())


def test_a_server_that_is_down_says_how_to_go_on(backend):
    made = backend("http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(BackendError, match=r"no connection after 2 attempts; start it.*none is stored.*--resume"):
        made.generate(["p"], Sampling())


def test_answers_written_before_a_failure_are_kept_and_no_new_ones_asked(faulty, backend, tmp_path):
    server = faulty("--fault", "400", "--only", "bad")
    prompts = ["good 1", "good 2", "bad", *(f"later {n}" for n in range(50))]
    made = backend(server, cache=tmp_path, concurrency=2)
    with pytest.raises(BackendError, match=r"[23] of 53 answers are stored"):
        made.generate(prompts, Sampling())
    assert len(server.counts()["asked"]) <= 6


def test_retry_after_is_honoured_by_everybody_in_flight(faulty, backend):
    server = faulty("--fault", "429", "--times", "1", "--retry-after", "1", "--only", "question 1")
    start = time.monotonic()
    backend(server, concurrency=1).generate(["question 1", "question 2"], Sampling())
    assert time.monotonic() - start >= 1.0
    times = server.counts()["times"]
    assert times[2] - times[1] >= 1.0


def test_a_pause_of_hours_is_not_slept_through(faulty, backend):
    made = backend(faulty("--fault", "429", "--retry-after", "7200"))
    with pytest.raises(BackendError, match=r"must be at most 600 s, got status 429 after 1 attempt; wait 7200 s"):
        made.generate(["p"], Sampling())


def test_a_spent_account_is_not_asked_again(faulty, backend):
    server = faulty("--fault", "429", "--code", "insufficient_quota")
    with pytest.raises(BackendError, match=r"status 429 \(insufficient_quota\) after 1 attempt"):
        backend(server, endpoint="chat").generate(["p"], Sampling())


def test_codes_that_are_not_of_the_interface_are_not_shown(faulty, backend):
    server = faulty("--fault", "400", "--code", "canary-7351")
    with pytest.raises(BackendError) as caught:
        backend(server, endpoint="chat").generate(["p"], Sampling())
    assert "canary" not in str(caught.value)


def test_the_key_goes_to_the_server_and_nowhere_else(faulty, backend, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "sk-canary-9182")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    server = faulty("--fault", "401", "--only", "bad")
    made = backend(server, cache=tmp_path, api_key_env="MY_KEY")
    made.generate(["good"], Sampling())
    with pytest.raises(BackendError, match="check the key in MY_KEY") as caught:
        made.generate(["bad"], Sampling())
    assert set(server.counts()["keys"]) == {"Bearer sk-canary-9182"}
    everything = str(caught.value) + caplog.text + (tmp_path / "answers.jsonl").read_text()
    assert "sk-canary" not in everything
    local = faulty()
    backend(local).generate(["p"], Sampling())
    assert set(local.counts()["keys"]) == {"Bearer none"}


def test_a_proxy_is_not_used_for_loopback(faulty, backend, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert backend(faulty()).generate(["p"], Sampling())[0].text == "re[0]: p"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("0", None),
        ("-4", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("Tue, 01 Jan 2030 00:00:20 GMT", 20.0),
        ("Mon, 31 Dec 2029 23:59:20 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header, seconds):
    assert seconds_to_wait(header, NOW) == seconds


@given(
    trouble=st.sampled_from(Trouble),
    status=st.integers(300, 599),
    pause=st.none() | st.floats(0.1, 1e5),
    attempts=st.integers(1, 9),
)
def test_every_failure_has_words_with_what_came_and_what_to_do(trouble, status, pause, attempts):
    failure = Failure(trouble, status=status, reason="no choices", retry_after=pause)
    options = Options(base_url="http://127.0.0.1:1/v1", model="m")
    said = str(explain(ServerFailed(failure, attempts), options, "llm", "2 of 3 answers are stored"))
    assert failure.short in said
    assert "must" in said
    assert "2 of 3 answers are stored; then resume with `privkt run --resume`" in said
