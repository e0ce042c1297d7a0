"""docs/methods/fdkt.md names every key of the block and its sub-blocks, with its real default."""

import re
from pathlib import Path

import yaml
from privkt_fdkt.config import FDKTConfig
from pydantic import BaseModel

PAGE = (Path(__file__).parents[2] / "docs" / "methods" / "fdkt.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n### Every key\n")[1].split("\n### ")[0]
WRITTEN = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", SECTION, re.M))


def keys(model, before=""):
    """{dotted key: its field} of a block and the blocks in it."""
    found = {}
    for name, field in model.model_fields.items():
        found[before + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys(field.annotation, f"{before}{name}.")
    return found


def plain(value):
    """A default as YAML gives it."""
    return [str(v) if isinstance(v, str) else v for v in value] if isinstance(value, tuple) else value


def test_the_table_names_every_key_once_and_no_other():
    listed = re.findall(r"^\| `([\w.]+)` \|", SECTION, re.M)
    assert sorted(listed) == sorted(keys(FDKTConfig))


def test_the_defaults_are_the_real_ones():
    for name, field in keys(FDKTConfig).items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert WRITTEN[name] == ("required" if field.is_required() else "a block"), name
        else:
            default = plain(field.get_default(call_default_factory=True))
            assert yaml.safe_load(WRITTEN[name].strip("`")) == default, name
