"""Several processes are one training: one draw, one noise, one charge. Two real ones over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("ranks_worker.py")


def run_two(mode, folder):
    """What each of two processes found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(WORKER), mode, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_give_the_weights_and_epsilon_of_one(dp, tmp_path):
    """The same keys, once in one process: a second noise, another draw or a lost microbatch would show at 1e-2."""
    found = run_two("keys", tmp_path)
    model = dp.make("llama-lora")
    alone = dp.training(model, test_keys=dp.keys(3))
    dp.run(alone)
    weights = [torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(*weights)
    assert float((weights[0] - dp.weights(model)).abs().max()) < 1e-6
    assert [x["epsilon"] for x in found] == [alone.plan.epsilon] * 2


@pytest.mark.parametrize("mode", ["charge", "trainer"])
def test_two_processes_charge_once_and_give_one_release(mode, ledger, tmp_path):
    found = run_two(mode, tmp_path)
    assert found[0] == found[1]
    assert [charge.id for charge in ledger.charges()] == [found[0]["charge"]]
    assert ledger.status(found[0]["charge"]).taken == 3


@pytest.mark.parametrize(
    ("mode", "first", "other"),
    [
        ("too-much", "cap", "the charge must succeed in the first process"),
        ("different", "the trainable parameters must be the same", "the trainable parameters must be the same"),
    ],
)
def test_a_refusal_ends_both_processes(mode, first, other, tmp_path):
    found = run_two(mode, tmp_path)
    assert first in found[0]["message"]
    assert other in found[1]["message"]
    assert not (tmp_path / "weights-0.pt").exists()
