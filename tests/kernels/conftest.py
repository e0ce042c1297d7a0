"""Every rule of a kernel is demanded of all that make it: the CPU's kernels, what a GPU's threads do, the reference."""

import pytest
import torch

from privkt.kernels import native


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of threads that are the CUDA kernels, played on the CPU where a kernel is made of such."""

    def in_blocks(kernel: str, device: torch.device) -> str | None:
        return "blocks" if hasattr(native.module(), kernel + "_blocks") else None

    monkeypatch.setattr(native, "in_blocks", in_blocks)


@pytest.fixture(params=["native", "blocks", "reference"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Function-scoped, so that it ends with its test; the same for every example that hypothesis draws in one."""
    if request.param == "blocks":
        request.getfixturevalue("played")
    monkeypatch.setenv("PRIVKT_KERNELS", "reference" if request.param == "reference" else "native")
    return request.param
