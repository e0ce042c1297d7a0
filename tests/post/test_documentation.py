"""docs/methods/post.md names every key with its real default, every arm, and every task with its cue and words."""

import re
from pathlib import Path

import yaml
from privkt_post.arms import Arm
from privkt_post.config import POSTConfig
from privkt_post.tasks import KNOWN
from pydantic import BaseModel

PAGE = (Path(__file__).parents[2] / "docs" / "methods" / "post.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Every key\n")[1]
WRITTEN = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", SECTION, re.M))


def part(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


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
    assert sorted(listed) == sorted(keys(POSTConfig))


def test_the_defaults_are_the_real_ones():
    for name, field in keys(POSTConfig).items():
        if field.is_required():
            assert WRITTEN[name] == "required", name
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert WRITTEN[name] == "a block", name
            continue
        default = field.get_default(call_default_factory=True)
        default = [str(value) for value in default] if isinstance(default, tuple) else default
        written = yaml.safe_load(WRITTEN[name].strip("`"))
        assert (float(written) if isinstance(default, float) else written) == default, name


def test_every_arm_is_listed():
    assert re.findall(r"^\| `([\w-]+)` \|", part("Arms"), re.M) == [arm.value for arm in Arm]


def test_every_task_is_listed_with_its_cue_and_words():
    listed = {}
    for names, cue, words in re.findall(r"^\| (`[^|]+`) \| `([^`]+)` \| ([^|]+) \|", part("Tasks"), re.M):
        for name in re.findall(r"`(\w+)`", names):
            listed[name] = (cue, words)
    assert list(listed) == list(KNOWN)
    for name, (cue, words) in KNOWN.items():
        assert listed[name][0] == cue.lstrip(" ") or listed[name][0] == cue, name
        said = listed["sst2"][1] + listed[name][1] if name == "tweet" else listed[name][1]
        for label, own in words.items():
            assert label in said, (name, label)
            assert all(word in said for word in own), (name, label)


def test_every_step_is_listed_in_order():
    from privkt_post.method import POST

    listed = re.findall(r"^\| `(\w+)` \| (provider|user) \|", part("From the paper to the code"), re.M)
    sides = {"server": "provider", "client": "user"}
    assert listed == [(step.name, sides[str(step.side)]) for step in POST.steps()]
