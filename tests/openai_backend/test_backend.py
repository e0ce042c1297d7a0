"""Asking many questions: order, concurrency, repeated prompts, resuming after a death, and never twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from privkt.contracts import BackendError, CapabilityMissing, ChatTurn, Sampling

PROMPTS = [f"question {n}" for n in range(23)]


class Notes:
    """A progress that remembers."""

    def __init__(self):
        self.total, self.done, self.notes = None, 0, []

    def task(self, title, total, unit=""):
        self.total = total
        return self

    def advance(self, amount=1, note=""):
        self.done += amount
        self.notes.append(note)


def asked_for(server, prompts):
    return {prompt: n for prompt, n in server.counts()["asked"].items() if prompt in set(prompts)}


def test_answers_come_in_order(faulty, backend):
    got = backend(faulty("--delay", "0.01")).generate(PROMPTS, Sampling())
    assert [one.text for one in got] == [f"re[0]: {prompt}" for prompt in PROMPTS]
    assert {(one.finish, one.tokens) for one in got} == {("stop", 3)}


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_as_many_are_in_flight_as_allowed_and_no_more(faulty, backend, concurrency):
    server = faulty("--delay", "0.3")
    backend(server, concurrency=concurrency).generate(PROMPTS[: 2 * concurrency], Sampling())
    assert server.counts()["most_in_flight"] == concurrency


def test_equal_prompts_get_answers_and_seeds_of_their_own(faulty, backend, tmp_path):
    server = faulty()
    made = backend(server, cache=tmp_path)
    got = made.generate(["same", "other", "same", "same"], Sampling(seed=5))
    assert sorted(one.text for one in got) == ["re[0]: other", "re[0]: same", "re[1]: same", "re[2]: same"]
    seeds = [body["seed"] for body in server.counts()["bodies"] if body["prompt"] in ("same", "other")]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    again = backend(server, cache=tmp_path)
    assert again.generate(["same", "other", "same", "same"], Sampling(seed=5)) == got
    assert asked_for(server, ["same", "other"]) == {"same": 3, "other": 1}
    assert again.traffic.from_cache == 4


def test_another_seed_or_sampling_is_another_question(faulty, backend, tmp_path):
    server = faulty()
    made = backend(server, cache=tmp_path)
    for sampling in (Sampling(seed=1), Sampling(seed=2), Sampling(seed=2, top_p=0.5), Sampling(seed=2, stop=("x",))):
        made.generate(["p"], sampling)
    made.generate([(ChatTurn("user", "p"),)], Sampling(seed=1))
    backend(server, cache=tmp_path, seed=1).generate(["p"], Sampling())
    assert asked_for(server, ["p"]) == {"p": 5}


def test_without_a_cache_nothing_is_written_and_everything_asked_again(faulty, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = faulty()
    for _ in range(2):
        backend(server).generate(["p"], Sampling())
    assert asked_for(server, ["p"]) == {"p": 2}
    assert list(tmp_path.iterdir()) == []


def test_after_a_death_only_the_missing_are_asked(faulty, backend, tmp_path):
    dying = faulty("--die-after", "9", "--delay", "0.02")
    with pytest.raises(BackendError, match=r"(?s)the server must be up, got no connection.*resume") as caught:
        backend(dying, cache=tmp_path, max_retries=1).generate(PROMPTS, Sampling())
    lines = (tmp_path / "answers.jsonl").read_bytes().splitlines()
    # One of the nine was the probe of the endpoint; what was in flight as the server died is lost.
    assert 1 <= len(lines) <= 8
    assert f"{len(lines)} of 23 answers are stored" in str(caught.value)
    with (tmp_path / "answers.jsonl").open("ab") as file:
        file.write(b'{"key":"cut in the mid')
    server = faulty()
    got = backend(server, cache=tmp_path).generate(PROMPTS, Sampling())
    assert [one.text for one in got] == [f"re[0]: {prompt}" for prompt in PROMPTS]
    asked = asked_for(server, PROMPTS)
    assert set(asked.values()) == {1}
    assert len(asked) == 23 - len(lines)


def test_a_full_cache_needs_no_server(faulty, backend, tmp_path):
    server = faulty()
    got = backend(server, cache=tmp_path).generate(PROMPTS, Sampling())
    server.process.kill()
    server.process.wait(timeout=30)
    notes = Notes()
    assert backend(server, cache=tmp_path).generate(PROMPTS, Sampling(), notes) == got
    assert (notes.total, notes.done) == (23, 23)


def test_progress_counts_every_row_once(faulty, backend, tmp_path):
    server = faulty("--fault", "500", "--times", "1", "--only", "question 3")
    backend(server, cache=tmp_path).generate(PROMPTS[:7], Sampling())
    notes = Notes()
    made = backend(server, cache=tmp_path)
    made.generate(PROMPTS[:11], Sampling(), notes)
    assert (notes.total, notes.done) == (11, 11)
    assert "from the cache" in notes.notes
    assert made.traffic.retries == 0


def test_strings_go_to_chat_where_completions_are_missing(faulty, backend, tmp_path):
    server = faulty("--no-completions")
    backend(server, cache=tmp_path).generate(PROMPTS[:3], Sampling(max_new_tokens=9, top_k=4))
    bodies = [body for body in server.counts()["bodies"] if body.get("messages")]
    assert Counter(len(body["messages"]) for body in bodies) == {1: 3}
    assert all(body["messages"][0]["role"] == "user" for body in bodies)
    assert all(body["max_tokens"] == 9 and body["top_k"] == 4 for body in bodies)


def test_endpoint_is_obeyed(faulty, backend):
    server = faulty()
    backend(server, endpoint="chat", max_tokens_field="max_completion_tokens").generate(["p"], Sampling())
    (body,) = server.counts()["bodies"]
    assert body["messages"] == [{"role": "user", "content": "p"}]
    assert body["max_completion_tokens"] == 64
    with pytest.raises(CapabilityMissing, match="endpoint: completions"):
        backend(server, endpoint="completions").generate([(ChatTurn("user", "p"),)], Sampling())


def test_fields_beyond_the_interface_go_out_only_when_asked_for(faulty, backend):
    server = faulty()
    made = backend(server, endpoint="completions", extra_body={"min_p": 0.1})
    made.generate(["p"], Sampling())
    (body,) = server.counts()["bodies"]
    assert body == {"model": "m", "prompt": "p", "max_tokens": 64, "temperature": 1.0, "top_p": 1.0, "min_p": 0.1}


def test_it_works_inside_a_running_loop(faulty, backend):
    made = backend(faulty())

    async def notebook():
        return made.generate(["p"], Sampling())

    assert asyncio.run(notebook())[0].text == "re[0]: p"


def test_no_prompts_ask_nothing(backend):
    made = backend("http://127.0.0.1:9/v1")
    assert made.generate([], Sampling()) == []
    assert made.score([], []) == []
    assert made.embed([]).shape == (0, 0)


def test_score_wants_pairs(backend):
    with pytest.raises(ValueError, match="must have 2 rows like prompts, got 1"):
        backend("http://127.0.0.1:9/v1").score(["a", "b"], ["c"])
