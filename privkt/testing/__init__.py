"""Shared tests for plugin authors: subclass a suite in a test module, name the plugin, and pytest runs the checks.

    class TestMyMechanism(MechanismSuite):
        name = "my-distribution:my_mechanism"
        def mechanisms(self): ...

Needs the extra `privkt[testing]`.
"""

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise ImportError(
        f"privkt.testing needs pytest and hypothesis, and {error.name} is not installed; "
        "install them with `pip install 'privkt[testing]'`"
    ) from error

for _module in ("backend", "dataset", "generated", "mechanism", "method", "noise", "protocol", "statistics", "tokens"):
    pytest.register_assert_rewrite(f"privkt.testing.{_module}")

from privkt.testing.backend import BackendSuite  # noqa: E402
from privkt.testing.dataset import DatasetSuite  # noqa: E402
from privkt.testing.mechanism import MechanismSuite  # noqa: E402
from privkt.testing.method import MethodSuite  # noqa: E402
from privkt.testing.sites import MemoryState, client_site, private_data, server_site  # noqa: E402
from privkt.testing.tokens import TokenMechanismSuite  # noqa: E402

__all__ = [
    "BackendSuite",
    "DatasetSuite",
    "MechanismSuite",
    "MemoryState",
    "MethodSuite",
    "TokenMechanismSuite",
    "client_site",
    "private_data",
    "server_site",
]
