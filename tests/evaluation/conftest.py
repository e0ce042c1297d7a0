"""Runs written by hand: a directory, its ledgers and outcomes, without a model."""

import pytest

from privkt.config import parse_config
from privkt.contracts import Outcome
from privkt.privacy import (
    Guarantee,
    Ledger,
    calibrate_noise,
    epsilon,
    none_event,
    poisson_gaussian_event,
    replace_one_epsilon,
)
from privkt.runtime.accounts import scope_id
from privkt.runtime.run_directory import RunDirectory

SIZE, DELTA, SLACK = 400, 1e-5, 1e-8
MAIN = "FDKT"
ARMS = {
    "private data alone": "nothing crossed",
    "private + LLM without demonstrations": "nothing about records crossed",
    MAIN: "release",
    "raw demonstrations (not private, upper bound)": "none",
}


class Written:
    """A run directory that holds what a test asks for."""

    def __init__(self, folder, clients=("a",), seeds=(0,)):
        client = {"labels": ["x", "y"], "label": "l", "source": "json", "path": "/nowhere.jsonl", "size": SIZE}
        self.config = parse_config(
            {
                "method": "fdkt",
                "budget": {"epsilon": 3, "delta": DELTA},
                "clients": [{"name": name, "data": {**client, "name": f"data-{name}"}} for name in clients],
                "models": {
                    role: {"backend": "transformers", "model": f"/home/somebody/{role}-model"}
                    for role in ("generator", "slm", "llm")
                },
                "fdkt": {"template": {"control": "Topic: {label}"}},
                "seeds": list(seeds),
            }
        )
        self.run = RunDirectory.create(folder, self.config)
        self.ledgers = {
            name: Ledger.open_or_create(f"data-{name}", cap_epsilon=9.0, cap_delta=1e-3, size=SIZE) for name in clients
        }

    @property
    def path(self):
        return self.run.path

    def charge(self, name="a", *, target=3.0, rate=0.1, steps=40, run_id=None):
        """One private training, charged as PrivateTraining does."""
        noise = calibrate_noise(target, DELTA - SLACK, rate, steps, "zero-out")
        event = poisson_gaussian_event(noise, rate, steps)
        guarantee = Guarantee(
            "approximate",
            epsilon(event, DELTA - SLACK),
            DELTA,
            replace_one_epsilon=replace_one_epsilon(event, DELTA - SLACK),
        )
        charge = self.ledgers[name].charge(
            event,
            guarantee,
            run_id=scope_id(run_id or self.run.run_id, "shared"),
            purpose="fdkt: fine-tune the generator",
            fingerprint=f"rows of {name}",
            declared={"noise_per_coordinate": 0.0123},
            slack_delta=SLACK,
        )
        self.ledgers[name].taken(charge.id, steps)
        return noise, rate, steps, guarantee

    def force(self, name="a"):
        """An infinite spend of this run."""
        self.ledgers[name].charge(
            none_event(),
            Guarantee.none("a release of kind none was forced"),
            run_id=scope_id(self.run.run_id, "seed-0"),
            purpose="unprotected: publish",
            fingerprint=f"rows of {name}",
            declared={},
            force=True,
        )

    def end(self, name="a", seed=0, *, scores=None, **notes):
        """A client's outcome for a seed."""
        told = {
            "main": MAIN,
            "order": list(ARMS),
            "arms": {arm: {"protection": said} for arm, said in ARMS.items()},
            **notes,
        }
        self.run.results(name, seed).save_result("learn", Outcome(scores or {}, told))
        self.run.mark_done(name, "learn", seed)

    def finish(self):
        self.run.event("done", site="a", step="learn", scope="seed-0", seconds=1.5)
        self.run.event("finished")


@pytest.fixture
def written(tmp_path):
    """Makes a run by hand: written(clients=("a", "b"), seeds=(0, 1))."""
    return lambda **options: Written(tmp_path / "run", **options)
