"""Every mechanism of privkt's own passes the shared suites: none is forgotten."""

import importlib.util
import re
from pathlib import Path

from privkt.plugins import get_manager
from privkt.privacy import Unit
from privkt.testing import MechanismSuite, TokenMechanismSuite

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "mechanisms.md"


def suites():
    """The suites of this folder's tests, by the name of the mechanism that they are for."""
    found = {}
    for file in HERE.glob("test_*.py"):
        if file.name == Path(__file__).name:
            continue
        spec = importlib.util.spec_from_file_location(f"suites_in_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if name.startswith("Test") and isinstance(value, type) and issubclass(value, MechanismSuite) and value.name:
                found[value.name] = value
    return found


def test_every_mechanism_has_a_suite_and_every_table_is_made_up_too():
    found = suites()
    own = {
        provided.spec.name: provided.spec
        for plugin in get_manager().plugins()
        for provided in plugin.provides
        if provided.kind == "mechanism" and plugin.identity.startswith("privkt:")
    }
    assert set(found) >= set(own)
    for name, spec in own.items():
        if spec.unit == Unit.TOKEN:
            assert issubclass(found[name], TokenMechanismSuite), name
            assert found[name].over is not TokenMechanismSuite.over, f"{name}: no tables are made up"
    listed = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE.read_text("utf-8"), re.M)))
    )
    assert set(own) == listed
