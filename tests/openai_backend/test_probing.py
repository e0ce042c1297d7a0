"""What real servers do, as the probe finds it: one has log-probabilities, one drops them in silence."""

from __future__ import annotations

import pytest

from privkt.contracts import BackendError, Capability, CapabilityMissing, ChatTurn, Sampling


def test_a_server_with_everything_is_found_to_have_it(full_server, model_folder, backend):
    made = backend(full_server, model=str(model_folder))
    assert made.probe() == {Capability.GENERATE, Capability.CHAT, Capability.SCORE, Capability.EMBED}
    facts = made.findings().facts
    assert facts["logprobs"] is True
    assert facts["echo"] == "0"
    assert facts["seed"] is True
    assert facts["samples"] is True
    assert facts["stop"] is True
    assert facts["max_tokens"] is True


def test_transformers_serve_is_found_to_lack_logprobs(transformers_server, model_folder, backend):
    made = backend(transformers_server, model=str(model_folder))
    assert made.probe() == {Capability.GENERATE, Capability.CHAT}
    facts = made.findings().facts
    assert facts["completions"] is True
    assert facts["max_tokens"] is True
    assert facts["stop"] is True
    assert facts["logprobs"] is False
    assert facts["echo"] is None
    assert facts["embeddings"] is False
    with pytest.raises(CapabilityMissing, match=r"cannot score: the probe got no log-probabilities.*transformers"):
        made.score(["The"], [" dog"])
    with pytest.raises(CapabilityMissing, match="cannot embed"):
        made.embed(["The dog"])


def test_transformers_serve_generates(transformers_server, model_folder, backend):
    made = backend(transformers_server, model=str(model_folder))
    sampling = Sampling(max_new_tokens=6, temperature=0.0)
    strings = made.generate(["The river", "The sun"], sampling)
    chats = made.generate([(ChatTurn("user", "The river"),)], sampling)
    assert [0 < one.tokens <= 6 for one in strings + chats] == [True] * 3
    assert made.generate(["The river"], sampling)[0] == strings[0]


def test_a_server_with_chat_alone_continues_no_plain_text(faulty, backend):
    assert backend(faulty("--no-completions")).probe() == {Capability.CHAT}
    assert backend(faulty(), endpoint="chat").probe() == {Capability.CHAT}
    assert backend(faulty(), endpoint="completions").probe() == {Capability.GENERATE}


def test_the_probe_is_asked_once_in_a_process(faulty, backend):
    server = faulty()
    backend(server).probe()
    before = server.counts()["answered"]
    backend(server).probe()
    assert server.counts()["answered"] == before
    backend(server, model="another").probe()
    assert server.counts()["answered"] > before


def test_the_probe_sends_the_same_public_strings_to_everybody(faulty, backend):
    first, second = faulty(), faulty()
    canary = "canary-7351"
    backend(first).generate([canary], Sampling())
    backend(first).probe()
    backend(second).probe()
    probes = {prompt for prompt in first.counts()["asked"] if prompt != canary}
    assert probes == set(second.counts()["asked"])


def test_a_server_that_answers_neither_way_is_an_error(faulty, backend):
    with pytest.raises(BackendError, match=r"answers must be JSON.*no choices"):
        backend(faulty("--fault", "empty-choices")).probe()


def test_a_wrong_model_is_named(faulty, backend):
    with pytest.raises(BackendError, match=r"must serve the model 'm', got status 404.*check `model`"):
        backend(faulty("--fault", "404")).probe()


def test_embeddings_of_one_value_are_no_score(faulty, backend):
    made = backend(faulty())
    assert Capability.SCORE not in made.probe()
    assert Capability.EMBED not in made.probe()
