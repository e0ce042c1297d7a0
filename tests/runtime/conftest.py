"""What the runtime's tests share: a toy method, and a ledger folder of their own."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the toys are imported by name, as a plugin's factory is


@pytest.fixture(autouse=True)
def own_ledgers(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Only a power cut could tell the difference; test_files.py holds the order of fsync and rename."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def toys():
    import runtime_toys

    runtime_toys.Toy.log.clear()
    runtime_toys.Toy.on_call = None
    runtime_toys.ToyBackend.probes = runtime_toys.ToyDataset.reads = 0
    yield runtime_toys
    runtime_toys.Toy.on_call = None
