"""The pages of KnowledgeSG and of DP generation name every key with its real default, every arm and every call."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from privkt_dp_synth.config import DPSynthConfig
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig, SeedsConfig
from pydantic import BaseModel

from privkt.config import load_config
from privkt.contracts import BackendContext, Example, Recipe
from privkt.plugins import get_manager

ROOT = Path(__file__).parents[2]
PAGES = {"knowledgesg": KnowledgeSGConfig, "dp_synth": DPSynthConfig}
BLOCKS = {"seeds": SeedsConfig}  # optional ones


def page(name):
    return (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")


def table(name):
    return re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", page(name).split("\n## Every key\n")[1], re.M)


def keys(model, before=""):
    """{dotted key: its field} of a block and the blocks in it."""
    found = {}
    for name, field in model.model_fields.items():
        found[before + name] = field
        inner = BLOCKS.get(name, field.annotation) if before == "" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= keys(inner, f"{before}{name}.")
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_table_names_every_key_once_and_no_other(name):
    assert sorted(key for key, _ in table(name)) == sorted(keys(PAGES[name]))


@pytest.mark.parametrize("name", PAGES)
def test_the_defaults_are_the_real_ones(name):
    written = dict(table(name))
    for key, field in keys(PAGES[name]).items():
        if field.is_required():
            assert written[key] == "required", key
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert written[key] == "a block", key
        else:
            default = field.get_default(call_default_factory=True)
            default = (
                [str(one) if isinstance(one, str) else one for one in default]
                if isinstance(default, tuple)
                else default
            )
            assert yaml.safe_load(written[key].strip("`")) == default, key


def test_every_arm_is_listed():
    arms = re.findall(r"^\| `([\w-]+)` \|", page("knowledgesg").split("\n## Arms\n")[1].split("\n## ")[0], re.M)
    assert arms == [arm.value for arm in Arm]


def test_every_call_that_is_named_exists():
    names = {found for name in PAGES for found in re.findall(r"`(privkt[\w.]+)`", page(name))}
    assert len(names) >= 12
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("name", ["knowledgesg-medical", "knowledgesg-finance"])
def test_the_examples_are_configs_of_the_method(name):
    config = load_config(ROOT / "examples" / f"{name}.yaml")
    settings = KnowledgeSGConfig.model_validate(config.method_config)
    assert settings.tuning.batch_size < config.clients[0].data.size
    assert Arm.NO_PRIVATE in settings.arms
    assert settings.professional.licence


def test_the_measurements_run_as_the_page_calls_them(wide_llama, tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", page("knowledgesg"), re.S)
    base = get_manager().create("backend", "transformers", {"model": str(wide_llama)}, BackendContext("base", "client"))
    recipe = Recipe(epochs=1, batch_size=2, learning_rate=1e-3, max_length=32, lora={"rank": 2, "alpha": 4})
    adapter = base.train([Example("a b", "c d")] * 4, recipe, folder=tmp_path / "training")
    for name, data in adapter.files.items():
        (tmp_path / name).write_bytes(data)
    exec(compile(code, "knowledgesg.md", "exec"), {"BASE": str(wide_llama), "ADAPTER": str(tmp_path)})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 8
    called = set(re.findall(r"print\((\w+)\(", code))
    assert called == {
        "name_reconstruction", "exposure", "instruction_following_difficulty", "compare", "compare_by_overlap",
        "compare_by_perplexity", "overlap_report", "divergence_frontier",
    }  # fmt: skip
    for name in called:
        assert re.search(rf"^\| .*`privkt[\w.]*\.{name}`", page("knowledgesg"), re.M), name
