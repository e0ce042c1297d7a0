"""Sites made of small stand-ins for models, and a public vocabulary of thirty words."""

import sys
from pathlib import Path

import pytest

from privkt.contracts import ClientSite, PrivateData, PublicFacts, ServerSite
from privkt.privacy import Budget
from privkt.testing.sites import MemoryState

sys.path.insert(0, str(Path(__file__).parent))  # the stand-ins are imported by name

from fedcot_fakes import LABELS, Large, Small, rows, write_vectors


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    """A file of words with vectors."""
    return write_vectors(tmp_path_factory.mktemp("vectors") / "words.txt")


@pytest.fixture
def block(vectors):
    """Makes a `fedcot:` block; keyword arguments replace keys, `perturbation` is merged."""

    def make(**changes):
        perturbation = {"vocabulary": {"vectors": str(vectors)}, "tokens": {"question": 9, "choice": 1}, "epsilon": 8.0}
        perturbation |= changes.pop("perturbation", {})
        return {"perturbation": perturbation, "slm": {"epochs": 1}, **changes}

    return make


@pytest.fixture
def make_client(tmp_path):
    """Makes a client's site."""

    def make(seed=0, name="a", size=24, state=None, models=None, public=False, private=None, budget=None):
        private = private or rows(0, size)
        return ClientSite(
            models={"slm": Small(), **(models or {})},
            state=MemoryState() if state is None else state,
            folder=tmp_path / f"{name}-{seed}",
            seed=seed,
            id=name,
            data=PrivateData(name, len(private), LABELS, lambda: private, public=public),
            budget=budget or Budget(500.0, 1e-5, neighbouring="local"),
            run_id="run",
            data_set_id="id",
            evaluation=lambda: rows(10_000, 30),
        )

    return make


@pytest.fixture
def make_server(tmp_path):
    """Makes the server's site for clients by name."""

    def make(*names, seed=0, llm=None):
        return ServerSite(
            models={"llm": llm or Large()},
            state=MemoryState(),
            folder=tmp_path / f"server-{seed}",
            seed=seed,
            clients={name: PublicFacts(name, 24, LABELS) for name in names},
        )

    return make
