"""Every rule of a kernel is demanded of both: the native kernels and the reference."""

import pytest


@pytest.fixture(params=["native", "reference"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Function-scoped, so that it ends with its test; the same for every example that hypothesis draws in one."""
    monkeypatch.setenv("PRIVKT_KERNELS", request.param)
    return request.param
