"""Every rule of a kernel is demanded of all that make it: the CPU's kernels, what a GPU's threads do, the reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from privkt.kernels import build_info, native

There = Callable[..., Any]


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


@pytest.fixture(params=["forwards", "backwards", "cuda"])
def there(request: pytest.FixtureRequest) -> There:
    """there(function, *args): what it gives where blocks of threads run, back on the CPU."""
    if request.param != "cuda":
        request.getfixturevalue("played")

        def play(function: Callable[..., Any], *args: Any) -> Any:
            native.module().play_backwards(request.param == "backwards")
            try:
                return function(*args)
            finally:
                native.module().play_backwards(False)

        return play
    if not (build_info()["cuda"] and torch.cuda.is_available()):
        pytest.skip("needs a build with CUDA and a GPU")

    def run(function: Callable[..., Any], *args: Any) -> Any:
        found = function(*(x.cuda() if isinstance(x, Tensor) else x for x in args))
        return found.cpu() if isinstance(found, Tensor) else tuple(x.cpu() for x in found)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> There:
    """The same by the CPU's own kernels."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(native, "in_blocks", lambda kernel, device: None)
            return function(*args)

    return run
