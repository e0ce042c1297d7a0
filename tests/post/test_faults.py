"""Faults of the public code; each test here holds one of them shut, as the method's page lists them."""

import importlib
import json
import pkgutil

import privkt_post
import pytest
import torch
from post_models import LABELS, sentences
from privkt_post.config import POSTConfig
from privkt_post.method import POST
from privkt_post.networks import Net
from privkt_post.prompts import rows_of

from privkt.contracts import BackendContext, PublicFacts, Rows, Texts
from privkt.plugins import get_manager
from privkt.privacy import Budget
from privkt.testing.sites import client_site, server_site


@pytest.fixture
def play(llama, block, tmp_path):
    """A client and a provider up to the transfer."""
    config = POSTConfig.model_validate(json.loads(json.dumps(block())))

    def backend(role):
        options = {"model": str(llama), "device": "cpu", "dtype": "float32"}
        return get_manager().create("backend", "transformers", options, BackendContext(role))

    def client(seed, name="a"):
        rows = sentences(24, seed)
        held = Rows(tuple(r["text"] for r in rows), tuple(r["mood"] for r in rows), tuple(map(str, range(24))))
        return client_site(
            held, tmp_path / f"{name}-{seed}", models={"local_target": backend("local_target")}, labels=tuple(LABELS),
            name=name,
        )  # fmt: skip

    def server(folder="server"):
        facts = {"a": PublicFacts("a", 24, tuple(LABELS))}
        return server_site(facts, tmp_path / folder, models={"target": backend("target")})

    return config, client, server


def moved(config, server, prompt):
    method = POST(config)
    method.distil(server)
    method.keep(server, {"a": prompt})
    return method.transfer(server, {"a": Texts(())})["a"]


def tuned(config, client, server):
    return POST(config).tune(client, POST(config).distil(server)["a"])


def test_no_checkpoint_is_picked_on_private_rows(play):
    """Another client's rows behind the same prompt give the same transfer: it has no way to them."""
    config, client, server = play
    release = tuned(config, client(1), server())
    first, second = (moved(config, server(f"s{i}"), release.payload) for i in (1, 2))
    assert first.files == second.files
    other = tuned(config, client(2), server())
    assert rows_of(other.payload).ne(rows_of(release.payload)).any()
    assert moved(config, server("s3"), other.payload).files != first.files


def test_source_and_target_prompt_share_nothing(play):
    config, client, server = play
    release = tuned(config, client(1), server())
    before = dict(release.payload.files)
    target = moved(config, server("s1"), release.payload)
    assert release.payload.files == before
    assert not torch.equal(rows_of(target), rows_of(release.payload))


def test_only_the_large_models_pass_behind_the_moving_prompt_records_gradients(play, monkeypatch):
    config, client, server = play
    release = tuned(config, client(1), server())
    recorded = []
    real = Net.hidden

    def watched(self, embeddings, mask):
        out = real(self, embeddings, mask)
        recorded.append((int(self.config.num_hidden_layers), out.requires_grad))
        return out

    monkeypatch.setattr(Net, "hidden", watched)
    moved(config, server("s1"), release.payload)
    assert {layers for layers, grad in recorded if grad} == {6}
    assert sum(grad for _, grad in recorded) == config.transfer.steps
    assert all(not grad for layers, grad in recorded if layers == 2)


def test_every_module_imports():
    names = [module.name for module in pkgutil.iter_modules(privkt_post.__path__)]
    assert len(names) > 20
    for name in names:
        importlib.import_module(f"privkt_post.{name}")


def test_privacy_does_not_force_an_optimizer():
    assert POSTConfig.model_validate({"transfer": {"public": [{}]}}).tuning.optimizer == "adam"


def test_the_epsilon_is_printed(play):
    config, client, server = play
    (training,) = POST(config).plan(PublicFacts("a", 24, tuple(LABELS)), Budget(4.0, 1e-5)).trainings
    assert "epsilon = 4" in str(training.guarantee)
    release = tuned(config, client(1), server())
    assert "epsilon = 4" in release.payload.files["README.md"].decode()
    assert release.guarantee.epsilon == pytest.approx(training.guarantee.epsilon, rel=1e-3)


def test_delta_of_one_in_n_runs_only_to_reproduce(play):
    from privkt.privacy import InvalidBudget

    config, _, _ = play
    facts = PublicFacts("a", 24, tuple(LABELS))
    with pytest.raises(InvalidBudget, match="must stay below 1/N"):
        POST(config).plan(facts, Budget(8.0, 1 / 24))
    with pytest.warns(UserWarning, match="reproduce"):
        POST(config).plan(facts, Budget(8.0, 1 / 24, reproduce=True))
