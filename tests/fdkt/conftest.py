"""Sites made of small stand-ins for models, so that the protocol can be followed step by step without one."""

import sys
from pathlib import Path

import pytest

from privkt.contracts import ClientSite, PrivateData, PublicFacts, ServerSite
from privkt.privacy import Budget
from privkt.testing.sites import MemoryState

sys.path.insert(0, str(Path(__file__).parent))  # the stand-ins are imported by name

from fdkt_fakes import LABELS, TEMPLATE, Fake, Generator, Large, Small, rows


@pytest.fixture
def fakes():
    """The stand-ins by name."""
    return {"generator": Generator, "llm": Large, "slm": Small, "embedder": Fake}


@pytest.fixture
def template_block():
    """A custom template for the two labels."""
    return dict(TEMPLATE)


@pytest.fixture
def make_client(tmp_path, fakes):
    """Makes a client's site; `seed`, `name`, `size` and further `models` can be given."""

    def make(seed=0, name="a", size=40, state=None, models=None, public=False, private=None):
        private = private or rows(0, size)
        return ClientSite(
            models={"generator": fakes["generator"](), "slm": fakes["slm"](), **(models or {})},
            state=MemoryState() if state is None else state,
            folder=tmp_path / f"{name}-{seed}",
            seed=seed,
            id=name,
            data=PrivateData(name, size, LABELS, lambda: private, public=public),
            budget=Budget(8.0, 1e-5),
            run_id="run",
            data_set_id="id",
            evaluation=lambda: rows(10_000, 30),
        )

    return make


@pytest.fixture
def make_server(tmp_path, fakes):
    """Makes the server's site for clients by name."""

    def make(*names, seed=0, llm=None, embedder=None):
        models = {"llm": llm or fakes["llm"](), **({"embedder": embedder} if embedder else {})}
        return ServerSite(
            models=models,
            state=MemoryState(),
            folder=tmp_path / f"server-{seed}",
            seed=seed,
            clients={name: PublicFacts(name, 40, LABELS) for name in names},
        )

    return make
