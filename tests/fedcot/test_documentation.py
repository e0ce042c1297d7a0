"""docs/methods/fedcot.md names every key of the block and its sub-blocks, with its real default, and every arm."""

import re
from pathlib import Path

import yaml
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from pydantic import BaseModel

PAGE = (Path(__file__).parents[2] / "docs" / "methods" / "fedcot.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Every key\n")[1]
WRITTEN = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", SECTION, re.M))


def keys(model, before=""):
    """{dotted key: its field} of a block and the blocks in it."""
    found = {}
    for name, field in model.model_fields.items():
        found[before + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys(field.annotation, f"{before}{name}.")
    return found


def test_the_table_names_every_key_once_and_no_other():
    listed = re.findall(r"^\| `([\w.]+)` \|", SECTION, re.M)
    assert sorted(listed) == sorted(keys(FedCoTConfig))


def test_the_defaults_are_the_real_ones():
    for name, field in keys(FedCoTConfig).items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert WRITTEN[name] == "a block", name
            continue
        default = field.get_default(call_default_factory=True)
        default = [str(arm) for arm in default] if isinstance(default, tuple) else default
        written = yaml.safe_load(WRITTEN[name].strip("`"))
        assert (float(written) if isinstance(default, float) else written) == default, name


def test_every_arm_is_listed():
    arms = re.findall(r"^\| `([\w-]+)` \|", PAGE.split("\n## Arms\n")[1].split("\n## ")[0], re.M)
    assert arms == [arm.value for arm in Arm]
