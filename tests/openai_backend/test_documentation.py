"""docs/backends.md says what the options really are, and its examples pass the check."""

from __future__ import annotations

import re
from pathlib import Path

import privkt_openai.options
import privkt_transformers.options
import pytest
import yaml
from privkt_openai.backend import OpenAIBackend

from privkt.contracts import BackendContext

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
ROLES = [block["llm"] for block in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.S)) if "llm" in block]


@pytest.mark.parametrize("backend", ["transformers", "openai"])
def test_the_table_names_every_option_and_no_other(backend):
    section = PAGE.split(f"\n## {backend}\n")[1].split("\n## ")[0].split("\n### ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", section, re.M))
    options = {"openai": privkt_openai.options, "transformers": privkt_transformers.options}[backend].Options
    assert named == set(options.model_fields)


def test_the_defaults_are_the_real_ones():
    section = PAGE.split("\n## openai\n")[1]
    written = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.M))
    for name in ("endpoint", "concurrency", "timeout", "max_retries", "backoff", "extra_body", "allow_plain_http"):
        assert yaml.safe_load(written[name]) == privkt_openai.options.Options.model_fields[name].get_default(
            call_default_factory=True
        )


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role["base_url"])
def test_the_examples_pass_the_check(role, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    OpenAIBackend({k: v for k, v in role.items() if k != "backend"}, BackendContext(role="llm")).check()


def test_there_is_an_example_for_each_kind_of_server():
    assert len(ROLES) == 5
